"""A picture file to uint8 pixels and features: headers, decoding, resizing, the kinds of features.

Labelled sets of pictures are `data`.
"""

"""A picture file to uint8 pixels and features: headers, decoding, resizing, grey and HOG.

Labelled sets of pictures are `data`.
"""

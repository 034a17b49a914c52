"""What Numba keeps of compiled code: where, and whether it is still whole.

Damaged machine code would end the process without a word, so each file begins with a digest of the rest; one that does
not fit it is compiled and written anew. Where Numba finds no folder of its own that it may write, its files are kept in
the user's own folder among the temporary ones, and where there is none either, nothing is kept.
"""

import contextlib
import hashlib
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from numba import config, njit
from numba.core.caching import FunctionCache, IndexDataCacheFile

from ..system.files import own_temporary_folder
from .arithmetic import CALLED

_DIGEST = 32


class _Whole(IndexDataCacheFile):
    """An index and data files that begin with a digest of their content."""

    @contextlib.contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[io.BytesIO]:
        content = io.BytesIO()
        yield content
        with super()._open_for_write(filepath) as file:
            file.write(hashlib.sha256(content.getvalue()).digest() + content.getvalue())

    def _load_index(self) -> dict[Any, str]:
        try:
            file = io.BytesIO(_content(self._index_path))
        except OSError:
            return {}
        if pickle.load(file) != self._version:
            return {}
        stamp, overloads = pickle.load(file)
        return overloads if stamp == self._source_stamp else {}

    def _load_data(self, name: str) -> Any:
        return pickle.loads(_content(self._data_path(name)))

    def save(self, key: Any, data: Any) -> None:
        # The disk may be full: what was compiled works all the same.
        with contextlib.suppress(OSError):
            super().save(key, data)


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        content = file.read()
    if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
        raise OSError(f"{path} is damaged")
    return content[_DIGEST:]


def kept(*signatures: Any) -> Callable[[Callable[..., Any]], Any]:
    """`njit` for functions that Python calls: what is compiled is kept, if it can be."""

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = njit(**CALLED)(function)
        cache = _cache_of(function)
        if cache is not None:
            compiled._cache = cache
        for signature in signatures:
            compiled.compile(signature)
        if signatures:
            compiled.disable_compile()
        return compiled

    return decorate


def is_kept(compiled: Any) -> bool:
    """Whether this function was compiled in this process, or compiled code of an earlier one is kept."""
    if can_keep(compiled) and compiled._cache._cache_file._load_index():
        return True
    return bool(getattr(compiled, "signatures", ()))


def can_keep(compiled: Any) -> bool:
    """Whether there is a folder to keep this function in."""
    return isinstance(getattr(compiled, "_cache", None), FunctionCache)


def _cache_of(function: Callable[..., Any]) -> Any:
    """Where Numba keeps it, or where we do; None where there is no place."""
    before = config.CACHE_DIR
    # Numba raises RuntimeError where it finds no folder.
    for folder in (lambda: before, own_temporary_folder):
        try:
            config.CACHE_DIR = folder()
            cache = FunctionCache(function)
        except (OSError, RuntimeError):
            continue
        finally:
            config.CACHE_DIR = before
        file = cache._cache_file
        # Another name than Numba's own files of this function have, which are not so.
        base = f"{cache._impl.filename_base}.whole"
        cache._cache_file = _Whole(cache.cache_path, base, file._source_stamp)
        return cache
    return None

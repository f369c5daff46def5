"""`compact`: fewer files, and none of what removals and merges left."""

from __future__ import annotations

from dataclasses import asdict

from tracefork_otel.store.spool import url_of

from ..spelling import counted
from .flags.options import STORE, JsonOption, StoreOption
from .opening import reading, told
from .output import FINDING, print_json, say


def compact(store: StoreOption = STORE, as_json: JsonOption = False) -> int:
    """Merge the store's segments into few, and delete the files that nothing needs any more.

    Of a store in a bucket, the logs are sealed into segments; any number of processes may do so at once.

    Exit 1 if a segment is damaged, which stays as it is.
    """
    from ..store.compacting import Extent, extent, pack

    def spelled(one: Extent) -> str:
        return f"{counted(one.segments, 'segment')}, {counted(one.files, 'file')}, {one.bytes} bytes"

    if (url := url_of(store)) is not None:
        from ..store.mirror import seal

        sealed = seal(url)
        for why in sealed.problems:
            say(f"left as it is: {why}")
        if as_json:
            print_json(asdict(sealed))
        else:
            print(f"{url}: {counted(sealed.wals, 'log')} sealed into {counted(sealed.segments, 'segment')}")
        return FINDING if sealed.problems else 0
    before = extent(store)  # opening it seals what dead processes left
    with reading(store) as opened:
        left = pack(opened.path)
        after = extent(store)
        if as_json:
            print_json({"before": asdict(before), "after": asdict(after), "left": left, **told(opened)})
        else:
            for why in left:
                say(f"left as it is: {why}")
            print(f"{store}: {spelled(before)} before; {spelled(after)} now")
    return FINDING if left else 0

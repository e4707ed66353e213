"""Model files that were damaged, at random or with intent: each is refused by name, or loads; in bounded time and
memory.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import tinyedge as te
from tinyedge.errors import ModelFormatError, UnsupportedOpError

MOST_SECONDS = 5.0
MOST_BYTES = 2**29
NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 64, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, 2**24, 2**28,
           2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
"""Where counts, offsets and sizes turn over; the largest are negative in two's complement."""

TEXTS = ("", "a", ".", "..", "/", "../../etc/passwd", "\0", "\u202e", "__class__", "{0}", "%s", "a" * 999)
VALUES = (None, [], {}, True, "x", 1, -1, 1.5, float("nan"), float("inf"), [[]], [1], {"a": 1}, 10**400)
Change = Callable[[bytes, Random], bytes]


def mutated(content: bytes, random: Random) -> bytes:
    """A file that was cut, or of which some bytes were changed, lost, or doubled."""
    data = bytearray(content)
    choice = random.randrange(4)
    if choice == 0:
        return bytes(data[: random.randrange(len(data))])
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data))
        if choice == 1:
            data[at] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
        elif choice == 2:
            del data[at : at + random.randint(1, 8)]
        else:
            data[at:at] = data[at : at + random.randint(1, 64)]
    return bytes(data)


def with_other_words(content: bytes, random: Random) -> bytes:
    """A file with other numbers in place of some: sizes, counts, enum values, and offsets that lead elsewhere."""
    data = bytearray(content)
    for _ in range(random.randint(1, 3)):
        width = random.choice((1, 2, 4, 4, 4, 8))
        aligned = width if random.random() < 0.8 else 1
        at = random.randrange(0, max(len(data) - width, 1), aligned)
        old = int.from_bytes(data[at : at + width], "little")
        other = random.randrange(0, max(len(data) - width, 1), aligned)
        number = random.choice((
            random.choice(NUMBERS), -random.choice(NUMBERS), old + random.choice((-8, -4, -1, 1, 4, 8)), old * 2,
            int.from_bytes(data[other : other + width], "little"), other, other - at,
        ))  # fmt: skip
        data[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(data)


def _fields(message: Any) -> Iterator[tuple[Any, Any]]:
    """Each message in a protobuf message, itself too, with each of its fields that is set."""
    for field, value in message.ListFields():
        yield message, field
        if field.message_type is None:
            continue
        inside = value.values() if hasattr(value, "values") else value if hasattr(value, "__len__") else [value]
        for each in inside:
            if hasattr(each, "ListFields"):
                yield from _fields(each)


def _is_text(message: Any, field: Any) -> bool:
    return field.type == field.TYPE_STRING and isinstance(getattr(message, field.name), str)


def _other_value(old: Any, texts: list[str], random: Random) -> Any:
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return random.choice((random.choice(NUMBERS), -random.choice(NUMBERS), old + 1, old - 1, -old))
    if isinstance(old, float):
        return random.choice((0.0, -1.0, 1e38, float("inf"), float("nan")))
    if isinstance(old, str):
        return random.choice((*TEXTS, *texts))
    return random.choice((b"", old[: len(old) // 2], old + old, old[1:], random.randbytes(8)))


def messages_mutator(parse: Callable[[bytes], Any]) -> Change:
    """Changes of a protobuf file field by field: other numbers, other nodes' names, entries lost, doubled, swapped,
    moved to another place: cycles, values made twice or never, attributes of other ops.
    """

    def change(content: bytes, random: Random) -> bytes:
        message = parse(content)
        for _ in range(random.randint(1, 3)):
            places = list(_fields(message))
            with suppress(ValueError, TypeError, AttributeError, KeyError):  # what the field cannot hold
                _change_field(places, random)
        return bytes(message.SerializeToString())

    return change


def _change_field(places: list[tuple[Any, Any]], random: Random) -> None:
    owner, field = random.choice(places)
    value = getattr(owner, field.name)
    texts = [getattr(message, each.name) for message, each in places if _is_text(message, each)]
    if hasattr(value, "keys"):
        keys = sorted(value.keys())
        if random.random() < 0.5:
            del value[random.choice(keys)]
        else:
            value[random.choice(keys)].CopyFrom(value[random.choice(keys)])
    elif hasattr(value, "extend"):
        _change_list(value, texts, random)
    elif field.message_type is None:
        setattr(owner, field.name, _other_value(value, texts, random))
    elif random.random() < 0.3:
        owner.ClearField(field.name)
    else:
        value.CopyFrom(random.choice([getattr(m, f.name) for m, f in places if f == field]))


def _change_list(values: Any, texts: list[str], random: Random) -> None:
    choice, at, other = random.randrange(4), random.randrange(len(values)), random.randrange(len(values))
    if choice == 0:
        del values[at]
    elif choice == 1:
        values.extend([copy.deepcopy(values[at])] * random.choice((1, 1, 2, 17)))
    elif hasattr(values[at], "CopyFrom"):
        kept = copy.deepcopy(values[at])
        values[at].CopyFrom(values[other])
        if choice == 2:
            values[other].CopyFrom(kept)
    else:
        values[at] = values[other] if choice == 2 else _other_value(values[at], texts, random)


def with_other_json(content: bytes, random: Random) -> bytes:
    """A text of JSON with other values, of other kinds too, keys lost or renamed, or nested too deeply."""
    tree = json.loads(content)
    for _ in range(random.randint(1, 3)):
        places: list[tuple[Any, Any]] = []
        pending = [tree]
        while pending:
            each = pending.pop()
            keys = list(each) if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
            places += [(each, key) for key in keys]
            pending += [each[key] for key in keys]
        if not places:
            break
        owner, key = random.choice(places)
        old, elsewhere = owner[key], random.choice(places)
        choice = random.randrange(6)
        if choice == 0:
            del owner[key]
        elif choice == 1:
            owner[key] = copy.deepcopy(elsewhere[0][elsewhere[1]])
        elif choice == 2:
            owner[key] = copy.deepcopy(random.choice(VALUES))
        elif choice == 3 and isinstance(old, (bool, int, float, str)):
            owner[key] = _other_value(old, [str(k) for _, k in places[:50]], random)
        elif choice == 4 and isinstance(owner, dict):
            owner[random.choice(TEXTS)] = owner.pop(key)
        else:
            for _ in range(random.choice((1, 40))):
                old = [old]
            owner[key] = old
    return json.dumps(tree).encode()


def _peak_bytes() -> int:
    """The most memory that the process had since ``_forget_peak``; 0 where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0


@contextmanager
def bounded(what: object) -> Iterator[None]:
    """Errors: AssertionError if what happens inside takes more time or memory than a file from a stranger may."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before, begin = _peak_bytes(), time.process_time()
    yield
    seconds, grown = time.process_time() - begin, _peak_bytes() - before
    assert seconds < MOST_SECONDS, f"{what}: {seconds:.1f} s"
    assert grown < MOST_BYTES, f"{what}: {grown >> 20} MiB"


def check_mutations(
    content: bytes, path: Path, count: int, seed: int, most: int | None = None, change: Change = mutated, **options: Any
) -> None:
    """Errors: whatever is no refusal by name. Only the first ``most`` bytes are changed, all if it is None."""
    random = Random(seed)
    for number in range(count):
        path.write_bytes(change(content[:most], random) + (b"" if most is None else content[most:]))
        with bounded(f"{path} after {number} changes"), suppress(ModelFormatError, UnsupportedOpError):
            te.load_model(path, **options)


def check_json(path: Path, load: Callable[[], Any], count: int, seed: int) -> None:
    """The same of a file of JSON, which ``load`` reads: changed as a tree, and as text."""
    random, content = Random(seed), path.read_bytes()
    for number in range(count):
        path.write_bytes((with_other_json if number % 4 else mutated)(content, random))
        with bounded(f"{path} after {number} changes"), suppress(ModelFormatError, UnsupportedOpError):
            load()
    path.write_bytes(content)

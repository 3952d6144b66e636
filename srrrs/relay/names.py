"""Names under the relay's domain: which there can be, and new ones for whoever asked for none.

A label is 1 to 63 of a-z, 0-9 and hyphen, no hyphen at either end (RFC 1123, 2.1). Labels with
hyphens in the third and fourth place are refused (RFC 5890, 2.3.1: among them "xn--", which would
let a tenant take a name that only looks like another's); so are capitals, for a name is never
replaced by another spelling of it.

A new one is two readable words and a suffix: one like `calm-otter-7f3k` is read aloud, typed and
remembered by people. It need not be secret: whoever must not reach a service has to be kept out by
other means.
"""

from __future__ import annotations

import random
import re
from collections.abc import Container
from typing import Final

from srrrs.protocol.frames import SERVICE_HOST
from srrrs.relay.refusal import Refusal, RefusalCode

#: Labels never given to a service: the control host is `relay.<domain>`.
RESERVED_LABELS: Final = frozenset({"relay"})

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

#: Characters of a suffix. Digits and letters without 0, 1, i, l, o (which are taken for each
#: other) and without the other vowels and y (so that no suffix spells a word).
SUFFIX_ALPHABET: Final = "23456789bcdfghjkmnpqrstvwxz"
SUFFIX_LENGTH: Final = 4

ADJECTIVES: Final = tuple(
    """
    able agile airy alert amber ample apt arctic autumn awake azure balmy basic beige blue bold
    brave breezy brief bright brisk broad bronze bubbly busy calm candid carefree casual cheery
    chilly civil classic clean clear clever cobalt cool copper coral cosmic cozy crafty creamy
    crimson crisp cuddly curious curly daily dainty dapper daring dear deep deft dewy direct
    distant dreamy eager early earnest easy elegant emerald even exact fair famous fancy fast
    fearless festive fine firm first fleet floral fluent fluffy fond frank free fresh friendly
    frosty full funny fuzzy gallant gentle genuine giant gifted glad gleeful glossy golden good
    grand grassy grateful great green happy hardy hearty helpful honest hopeful humble icy ideal
    indigo ivory jade jaunty jazzy jolly jovial joyful keen kind lavish leafy level light lilac
    lively lofty loving loyal lucid lucky lunar magic major mellow merry mighty mild mindful
    minty misty modern modest mossy narrow native natural navy neat nimble noble novel olive
    open orange orderly oval pastel patient peachy pearly peppy perky placid plain playful plum
    plush poetic polar polite pretty prime proper proud pure purple quick quiet radiant rapid
    rare ready real regal rich robust rosy round royal ruby rugged rural rustic sandy scenic
    serene shady sharp shiny silent silken silky silver simple sincere sleek smart smooth snowy
    snug social soft solar solid sound speedy spiral spry stable starry steady stellar still
    stormy sturdy subtle sunny super supple sure sweet swift tall tame tangy teal tender thrifty
    tidy tiny toasty tranquil trim true trusty upbeat urban useful valiant vast velvet vibrant
    vital vivid warm wavy wide wild windy winged winter wise witty wooden woolly young zany
    zesty
    """.split()
)

NOUNS: Final = tuple(
    """
    acorn alder alpaca anchor antler apple apricot aspen aster badger bagel bamboo banjo barley
    basil basin beacon bean bear beaver birch bison bloom bobcat brook buffalo bunny burrow
    cabin cactus camel canary candle canoe canyon carrot castle cedar cello cherry cliff cloud
    clover coast comet compass condor cookie cove coyote crane creek cricket crystal cypress
    daisy dawn deer delta desert dingo dolphin donkey dove dragon drum duckling dune eagle echo
    elk elm ember emu falcon fawn feather fern ferret fiddle field finch fir flamingo flint
    flute forest fossil fountain fox frog galaxy garden garnet gazelle gecko geyser gibbon
    ginger giraffe glacier glade goose gopher granite grape grove gull hamlet hammock harbor
    harp hawk hazel hedge heron hickory hill horse husky ibex ibis iguana impala inlet iris
    island ivy jaguar jasmine jay jetty juniper kayak kelp kestrel kettle kite kitten kiwi koala
    lagoon lake lantern larch lark laurel lava lemon lemur lentil leopard lily linden lion
    lizard llama lobster lotus lupine lynx macaw magnet magpie mallard mango maple marble marlin
    marmot marten meadow melon mesa meteor mint mirror monsoon moon moose moss moth mountain
    muffin narwhal nectar newt nutmeg oak oasis oat ocean onion opal orbit orca orchard orchid
    oriole osprey otter owl oyster palm panda panther papaya parrot parsley peach peacock pear
    pebble pecan pelican penguin peony pepper petal pheasant piano pigeon pine pinto planet
    plaza plover pond pony poplar poppy prairie puffin puma pumpkin python quail quartz quince
    rabbit raccoon radish rain raven reed reef ridge river robin rocket rose saffron sage salmon
    sapling satchel sequoia shell shore shrimp sierra sloth snail sparrow spruce squid stag star
    starling stone stork stream summit sun swallow swan sycamore tapir teapot thicket thistle
    thrush thunder tiger timber topaz toucan trail trout tulip tundra turnip turtle valley
    vanilla violet violin volcano walnut walrus warbler willow wombat wren yarrow zebra zephyr
    """.split()
)


def check_name(name: str, reserved: Container[str]) -> None:
    """Whether a service may be given a label or a whole host, if it is free.

    :param reserved: labels that belong to the relay.
    :raises Refusal: it may not.
    """
    if "." not in name:
        check_label(name, reserved)
    elif not SERVICE_HOST.fullmatch(name):
        raise Refusal(RefusalCode.NAME_INVALID, f"{name[:60]!r} is no host name")


def check_label(label: str, reserved: Container[str]) -> None:
    """Whether a service may be given a label, if it is free.

    :param reserved: those that belong to the relay.
    :raises Refusal: it may not.
    """
    if not _LABEL.fullmatch(label):
        raise Refusal(
            RefusalCode.NAME_INVALID,
            f"{_shown(label)} cannot be a name: use 1 to 63 lower-case letters, digits and "
            "hyphens, none at either end",
        )
    if label[2:4] == "--":
        raise Refusal(
            RefusalCode.NAME_INVALID,
            f"{_shown(label)} cannot be a name: hyphens in the third and fourth place are "
            "kept for internationalized names",
        )
    if label in reserved:
        raise Refusal(
            RefusalCode.NAME_RESERVED,
            f"the name {label!r} belongs to the relay; choose another name",
        )


def _shown(label: str) -> str:
    return repr(label if len(label) <= 63 else label[:60] + "...")


class Names:
    """Makes names.

    :param rng: where the choices come from; the system's generator when none is given.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng if rng is not None else random.SystemRandom()

    def make(self) -> str:
        """A name, always a valid DNS label; whether it is free is the caller's to find out."""
        suffix = "".join(self._rng.choices(SUFFIX_ALPHABET, k=SUFFIX_LENGTH))
        return f"{self._rng.choice(ADJECTIVES)}-{self._rng.choice(NOUNS)}-{suffix}"

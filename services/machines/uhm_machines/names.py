"""Names for machines that were given none: two words, as in `calm-heron`."""

from __future__ import annotations

import secrets
from typing import Final

__all__ = ["random_name"]

_QUALITIES: Final = """
    amber bold brave brisk calm clear cool crisp daring deep eager early fair fast fine firm fleet fond free
    fresh gentle glad golden grand green happy honest jolly keen kind light lively lucky mellow merry mild neat
    noble patient plain polite proud quick quiet ready red silver smart snug solid steady still sunny swift tidy
    true warm wise young
"""
_BEINGS: Final = """
    adder badger beaver bison crane curlew deer dipper dove duck eagle egret elk falcon ferret finch fox gecko
    goose grouse gull hare hawk heron ibex ibis jay kite lark lemur linnet lizard lynx marten merlin mole moose
    moth newt otter owl petrel plover puffin quail raven robin seal shrew siskin snipe stoat stork swan tern
    thrush toad trout vole weasel wren
"""


def random_name(*, numbered: bool = False) -> str:
    """A name made of two words, and a number of four digits where names of two words were taken."""
    words = f"{secrets.choice(_QUALITIES.split())}-{secrets.choice(_BEINGS.split())}"
    return f"{words}-{secrets.randbelow(9000) + 1000}" if numbered else words

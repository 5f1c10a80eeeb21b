"""Advice as it is printed."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from lt_jax.advice.measured import Measures
from lt_jax.longtail import FEW, MANY

if TYPE_CHECKING:
    from lt_jax.advice.advisor import Advice

_WIDTH = 96
_RANGES = {"many": f"over {MANY}", "medium": f"{FEW} to {MANY}", "few": f"under {FEW}"}
_DIFFERENCES = {
    False: "of balanced accuracy to cross-entropy",
    True: "of mAP, where nothing else is said, to binary cross-entropy",
}
_DIVIDED = (
    "DLSA (cross_entropy/dlsa): whether dividing a set pays depends on its features, of which"
    " counts tell nothing. [Xu et al., ECCV 2022; results/README.md]"
)


def render(advice: Advice) -> str:
    """All of it, in lines of at most 96 characters but for commands.

    Args:
      advice: to print.

    Returns:
      Text without a newline at its end.
    """
    return "\n".join(
        [
            *_counts(advice.measures, advice.multi_label),
            "",
            f"Methods, with differences {_DIFFERENCES[advice.multi_label]}",
            *(line for number, _ in enumerate(advice.choices) for line in _choice(advice, number)),
            *([] if advice.multi_label else _wrapped(_DIVIDED, "  ", "    ")),
            "",
            "Settings",
            *(line for s in advice.settings for line in _item(f"{s.name}: {s.value}", *s[2:])),
            *(["", "Beware"] if advice.cautions else []),
            *(line for note in advice.cautions for line in _wrapped(note, "  ", "    ")),
            "",
            f"To start with {advice.start.method} here",
            textwrap.indent(advice.command, "  "),
            "",
            "or, its loss alone, in your own loop",
            textwrap.indent(advice.snippet, "  "),
        ]
    )


def _counts(m: Measures, multi_label: bool) -> list[str]:
    what = "positives" if multi_label else "images"
    examples = f"{m.num_examples:,} examples, {m.labels:,} positives" if multi_label else ""
    return [
        f"{_classes(m.num_classes)}, {examples or f'{m.num_examples:,} images'}:"
        f" {m.largest:,} in the largest class, {m.smallest:,} in the smallest",
        "",
        "Imbalance",
        f"  {'factor':<20}{m.factor:<8.4g} largest / smallest",
        f"  {'Gini coefficient':<20}{m.gini:<8.2f} 0: balanced, near 1: one class has everything",
        f"  {'effective classes':<20}{m.effective:<8.4g} exponential of the entropy;"
        f" {m.inverse_simpson:.4g} by the inverse Simpson index",
        f"  {'head':<20}{m.head_share:<8.0%} of the {what} are of the most frequent third"
        f" ({_classes(max(1, m.num_classes // 3))})",
        "",
        f"Shot groups, by {what}",
        *(_group(name, m, what) for name in m.groups),
    ]


def _group(name: str, measures: Measures, what: str) -> str:
    group = measures.groups[name]
    classes = _classes(len(group.classes))
    return f"  {name:<8}{_RANGES[name]:<12}{classes:<16}{group.images:,} {what} ({group.share:.1%})"


def _classes(number: int) -> str:
    return f"{number:,} class{'' if number == 1 else 'es'}"


def _choice(advice: Advice, number: int) -> list[str]:
    choice = advice.choices[number]
    order = ("Start with", "Then try")[min(number, 1)]
    fields = ", ".join(f"{name}={value}" for name, value in choice.fields.items())
    title = f"{order} {choice.method}{f' ({fields})' if fields else ''}"
    return _item(title, choice.reason, choice.source)


def _item(title: str, reason: str, source: str) -> list[str]:
    return [f"  {title}", *_wrapped(f"{reason[0].upper()}{reason[1:]} [{source}]", "    ", "    ")]


def _wrapped(text: str, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )

"""A synthetic long-form-QA world: things with attributes, passages that state them, questions that ask for some.

Everything is a pure function of a `random.Random`. A prompt asks for two to four attributes of a thing; the passages
state more than that. An answer is a list of clauses, each stating one attribute, two clauses a sentence at most.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "color": ("red", "blue", "green", "amber", "violet", "ivory", "teal", "silver"),
    "founder": ("Smith", "Okafor", "Lindgren", "Tanaka", "Moreau", "Silva", "Novak", "Haddad"),
    "origin": ("Peru", "Norway", "Kenya", "Japan", "Chile", "Latvia", "Oman", "Nepal"),
    "material": ("oak", "copper", "marble", "linen", "glass", "bamboo", "granite", "leather"),
    "season": ("spring", "summer", "autumn", "winter", "monsoon", "harvest", "thaw", "solstice"),
    "emblem": ("falcon", "otter", "lotus", "anchor", "comet", "lantern", "wolf", "thistle"),
    "drink": ("tea", "cider", "cocoa", "mead", "coffee", "lassi", "sherry", "kefir"),
    "dance": ("waltz", "tango", "polka", "samba", "jig", "rumba", "foxtrot", "mazurka"),
}
"""Attribute -> its eight values; the value sets are disjoint."""

# fmt: off
ENTITIES: tuple[str, ...] = (
    "Aldora", "Belmar", "Corwin", "Dunmore", "Elvast", "Farrow", "Gildan", "Harkon", "Istria", "Jorvik",
    "Kelsan", "Lomond", "Mirova", "Norvale", "Ostrel", "Pelham", "Quorra", "Ravena", "Selwyn", "Tarkin",
    "Ulmara", "Vestry", "Wexley", "Xandor", "Yarrow", "Zephra", "Ardith", "Brenna", "Calder", "Dorset",
    "Estoril", "Fenwick", "Galway", "Hexham", "Ibarra", "Jasmund", "Kirkby", "Ludlow", "Marlow", "Nimrod",
)
# fmt: on
FLUFF: tuple[str, ...] = (
    "this is really good to know",
    "many people have asked about this",
    "there is more to say here",
    "it was always like that before",
)
"""Clauses that say nothing about the question."""

FACTS_IN_PASSAGES = 5
MIN_ASKED, MAX_ASKED = 2, 4
STATEMENT_TEMPLATES = ("the {attribute} of it is {value}", "for its {attribute} it has {value}")
PASSAGE_TEMPLATES = ("The {attribute} of {name} is {value}.", "For its {attribute} {name} has {value}.")
QUESTION_TEMPLATES = ("What are the {asked} of {name}?", "Tell me the {asked} of {name}.")


@dataclass(frozen=True)
class Question:
    """A question and the passages that hold its answer.

    Attributes:
        name: The thing asked about.
        asked: The attributes asked for, in the question's order.
        facts: Attribute -> value for everything the passages state.
        text: The question as a user would type it.
        passages: Each a title followed by sentences, as QA-Feedback has them.
    """

    name: str
    asked: tuple[str, ...]
    facts: dict[str, str]
    text: str
    passages: tuple[tuple[str, ...], ...]

    @property
    def context(self) -> str:
        """The passages as one text: title and sentences, a line a passage."""
        return "\n".join(" ".join(passage) for passage in self.passages)

    @property
    def prompt(self) -> str:
        """What the policy reads."""
        return f"question: {self.text} context: {self.context}"

    @property
    def fields(self) -> dict[str, str]:
        """Named inputs for the reward models' templates."""
        return {"question": self.text, "context": self.context}


def make_question(rng: random.Random) -> Question:
    """Draw a thing, its facts, the question and the passages."""
    name = rng.choice(ENTITIES)
    known = rng.sample(sorted(ATTRIBUTES), FACTS_IN_PASSAGES)
    facts = {attribute: rng.choice(ATTRIBUTES[attribute]) for attribute in known}
    asked = tuple(rng.sample(known, rng.randint(MIN_ASKED, MAX_ASKED)))
    listed = f"{', '.join(asked[:-1])} and {asked[-1]}"
    sentences = [
        rng.choice(PASSAGE_TEMPLATES).format(attribute=attribute, name=name, value=value)
        for attribute, value in facts.items()
    ]
    half = len(sentences) // 2
    return Question(
        name=name,
        asked=asked,
        facts=facts,
        text=rng.choice(QUESTION_TEMPLATES).format(asked=listed, name=name),
        passages=((name, *sentences[:half]), (name, *sentences[half:])),
    )


def state(attribute: str, value: str, rng: random.Random) -> str:
    """One clause that states an attribute."""
    return rng.choice(STATEMENT_TEMPLATES).format(attribute=attribute, value=value)


def join_clauses(clauses: Sequence[str]) -> str:
    """Make sentences of at most two clauses each."""
    pairs = [clauses[i : i + 2] for i in range(0, len(clauses), 2)]
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in (", and ".join(pair) for pair in pairs))


CLAUSE = re.compile(r"[^,.]*[^,.\s][^,.]*[,.]*")
"""A clause of an answer with its marks, and the white space before it."""
_SENTENCE = re.compile(r"[^.]*[^.\s][^.]*\.*")


def clauses_of(answer: str) -> list[str]:
    """The clauses of an answer with their marks: what the paper's sub-sentence rule finds in this world's text."""
    return [match.group().strip() for match in CLAUSE.finditer(answer)]


def sentences_of(answer: str) -> list[str]:
    """The sentences of an answer."""
    return [match.group().strip() for match in _SENTENCE.finditer(answer)]


def gold_answer(question: Question, rng: random.Random) -> str:
    """Every asked fact, once, right, and nothing else."""
    return join_clauses([state(attribute, question.facts[attribute], rng) for attribute in question.asked])


@dataclass(frozen=True)
class Habits:
    """The systematic errors of the demonstrations. Independent noise would be averaged away by greedy decoding.

    Attributes:
        misread: Attribute -> value -> the value it is taken for.
        companion: Attribute -> the unasked attribute that tends to be told with it.
        misread_rate: How often a misreadable value is misread.
        companion_rate: How often the companion of an asked attribute is added, when the passages have it.
        omit_rate: How often the last asked fact is left out, when three or more are asked.
        repeat_rate: How often an earlier statement is said again at the end.
        fluff_rate: How often an empty clause is added.
    """

    misread: dict[str, dict[str, str]]
    companion: dict[str, str]
    misread_rate: float = 0.65
    companion_rate: float = 0.65
    omit_rate: float = 0.55
    repeat_rate: float = 0.15
    fluff_rate: float = 0.12


MISREAD_VALUES = 3
COMPANIONS = 4


def make_habits(rng: random.Random) -> Habits:
    """Draw which values are misread as which, and which attributes drag others along."""
    misread = {}
    for attribute, values in ATTRIBUTES.items():
        victims = rng.sample(values, MISREAD_VALUES)
        misread[attribute] = {value: rng.choice([other for other in values if other != value]) for value in victims}
    order = rng.sample(sorted(ATTRIBUTES), len(ATTRIBUTES))
    return Habits(misread=misread, companion=dict(zip(order[:COMPANIONS], order[COMPANIONS:], strict=False)))


def demonstrate(question: Question, habits: Habits, rng: random.Random) -> str:
    """Answer the question as a careless writer would."""
    told = list(question.asked)
    if len(told) > MIN_ASKED and rng.random() < habits.omit_rate:
        told.pop()
    for attribute in question.asked:
        companion = habits.companion.get(attribute)
        if companion in question.facts and companion not in told and rng.random() < habits.companion_rate:
            told.insert(told.index(attribute) + 1 if attribute in told else len(told), companion)
    clauses = []
    for attribute in told:
        value = question.facts[attribute]
        if value in habits.misread[attribute] and rng.random() < habits.misread_rate:
            value = habits.misread[attribute][value]
        clauses.append(state(attribute, value, rng))
    if rng.random() < habits.repeat_rate:
        clauses.append(rng.choice(clauses))
    if rng.random() < habits.fluff_rate:
        clauses.append(rng.choice(FLUFF))
    return join_clauses(clauses)

"""The world: answers fit their passages, splits are apart, everything follows from the seed."""

import random

from tokenizers import Tokenizer

from demo.files import SPLITS, questions
from demo.oracle import judge
from demo.vocabulary import save_encoder_tokenizer, save_policy_tokenizer
from demo.world import ATTRIBUTES, clauses_of, demonstrate, gold_answer, make_habits, make_question, sentences_of


def test_every_fact_is_in_the_passages_and_every_asked_one_is_a_fact():
    rng = random.Random(0)
    for _ in range(200):
        question = make_question(rng)
        sentences = [sentence for passage in question.passages for sentence in passage[1:]]
        for attribute, value in question.facts.items():
            assert any({attribute, value} <= set(sentence.rstrip(".").split()) for sentence in sentences)
        assert set(question.asked) <= set(question.facts)
        assert all(attribute in question.text for attribute in question.asked)


def test_gold_answers_have_no_fault_and_demonstrations_have_many():
    rng = random.Random(1)
    habits = make_habits(rng)
    asked = [make_question(rng) for _ in range(300)]
    assert all(judge(question, gold_answer(question, rng)).faults == 0 for question in asked)
    faulty = sum(judge(question, demonstrate(question, habits, rng)).faults > 0 for question in asked)
    assert faulty > 150


def test_value_sets_are_disjoint():
    values = [value for group in ATTRIBUTES.values() for value in group]
    assert len(values) == len(set(values))


def test_no_question_stands_in_two_splits():
    prompts = [question.prompt for split in SPLITS for question in questions(split, seed=3)]
    assert len(prompts) == len(set(prompts)) == sum(SPLITS.values())


def test_another_seed_asks_other_questions():
    first, second = (questions("development", seed) for seed in (0, 1))
    assert questions("development", 0) == first
    assert first != second


def test_clauses_and_sentences_of_an_answer():
    answer = "The color of it is red, and the drink of it is tea. This is really good to know."
    assert clauses_of(answer) == [
        "The color of it is red,",
        "and the drink of it is tea.",
        "This is really good to know.",
    ]
    assert sentences_of(answer) == [
        "The color of it is red, and the drink of it is tea.",
        "This is really good to know.",
    ]


def test_no_word_of_the_world_is_unknown_and_text_survives_the_tokenizer(tmp_path):
    save_policy_tokenizer(tmp_path / "policy")
    save_encoder_tokenizer(tmp_path / "encoder")
    policy, encoder = (Tokenizer.from_file(str(tmp_path / name / "tokenizer.json")) for name in ("policy", "encoder"))
    rng = random.Random(2)
    habits = make_habits(rng)
    for _ in range(300):
        question = make_question(rng)
        answer = demonstrate(question, habits, rng)
        for text in (question.prompt, answer, f"{question.prompt} answer:"):
            assert "[UNK]" not in encoder.encode(text).tokens
        assert "<unk>" not in policy.encode(question.prompt).tokens
        assert policy.decode(policy.encode(answer).ids) == answer

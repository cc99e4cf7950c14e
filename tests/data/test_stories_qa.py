"""Questions about stories: answerable from what was told, never about a story of the other side of the split."""

from itertools import islice

from benchmarks.stories_qa import HELD_OUT, held_out, is_correct
from jupyter_gpt.data.split import place
from jupyter_gpt.data.stories import beats, documents
from jupyter_gpt.data.stories_qa import TURNS, conversations, questions_of
from jupyter_gpt.data.sums import conversations as sums
from jupyter_gpt.data.sums import problem


def right_sum(problem, answer: str) -> bool:
    """Whether `answer` ends in the right result; the steps are not judged."""
    _, mark, result = answer.rpartition("Answer:")
    return bool(mark) and " ".join(result.split()).rstrip(".") == problem.answer


def test_beats_are_the_story():
    for index, text in enumerate(islice(documents(7), 200)):
        assert " ".join(part for part, _ in beats(7, index)) == text


def test_every_answer_stands_in_what_was_told():
    for index in range(500):
        questions = questions_of(1, index, TURNS)
        assert 1 <= len(questions) <= TURNS
        first = questions[0].messages[0]["content"]
        for turn, question in enumerate(questions):
            assert question.fact.value in first, (first, question.fact)
            assert [m["role"] for m in question.messages] == ["user", "assistant"] * turn + ["user"]
            assert all(m["content"].strip() and not set("{}\\~") & set(m["content"]) for m in question.messages)


def test_conversations_are_the_questions_with_their_answers():
    messages, key = next(conversations(1))
    questions = questions_of(1, 0, TURNS)
    assert messages[:-1] == questions[-1].messages
    assert messages[-1]["content"] == questions[-1].fact.answer and key == questions[0].story


def test_held_out_questions_begin_a_conversation():
    for question in islice(held_out(1), 50):
        assert question.fact.value in question.messages[0]["content"]
        assert question.messages[-1]["role"] == "user" and len(question.messages) == 1


def test_held_out_stories_are_nowhere_in_training():
    trained = {key for _, key in islice(conversations(0), 3000) if place(key, "stories-qa") >= HELD_OUT}
    kept = {question.story for question in islice(held_out(0), 100)}
    assert not trained & kept
    assert all(place(text, "stories-qa") < HELD_OUT for text in kept)


def test_the_same_seed_tells_the_same():
    assert list(islice(conversations(3), 20)) == list(islice(conversations(3), 20))
    assert [messages for messages, _ in islice(conversations(3), 20)] != [
        messages for messages, _ in islice(conversations(4), 20)
    ]
    assert list(islice(held_out(3), 3)) == list(islice(held_out(3), 3))


def test_wordings_vary():
    said = {m["content"] for chat, _ in islice(conversations(0), 400) for m in chat[2::2]}
    homes = {q for q in said if "home" in q or "live" in q}
    assert any(q.startswith("Where did") for q in homes) and any("home" in q for q in homes)
    lengths = [len(messages[0]["content"].split()) for messages, _ in islice(conversations(0), 400)]
    assert min(lengths) < 25 and max(lengths) > 60


def test_right_takes_the_sentence_or_the_bare_words_and_nothing_else():
    question = next(q for q in held_out(0) if q.fact.relation == "home")
    name, where = question.fact.subject, question.fact.value
    assert (
        is_correct(question, f"{name} lived {where}.")
        and is_correct(question, where)
        and is_correct(question, f" {where.upper()}. ")
    )
    for wrong in (
        "",
        "Yes.",
        f"{name} lived on the moon.",
        f"{name} lived {where} and on the moon.",
        question.messages[0]["content"],
    ):
        assert not is_correct(question, wrong)


def test_articles_do_not_matter():
    question = next(q for q in held_out(0) if q.fact.relation == "wanted")
    assert is_correct(question, question.fact.value.removeprefix("a ").removeprefix("an "))


def test_sums_are_worked_out_before_they_are_answered():
    for index, (messages, key) in enumerate(islice(sums(5), 200)):
        found = problem(5, index)
        user, assistant = messages
        assert user == {"role": "user", "content": found.question} and key == found.question
        assert assistant["content"].splitlines()[:-1] == list(found.steps)
        assert right_sum(found, assistant["content"])
        assert not right_sum(found, assistant["content"] + "1") and not right_sum(found, found.answer)

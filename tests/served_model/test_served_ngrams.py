"""The served n-grams: their buckets are those of a slow reference that joins strings, in whatever company."""

import inspect
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ngrams.classifier import fit_ngrams
from pipeline.served_model import ngrams, tokenizer
from pipeline.served_model.ngrams import HASH_BUCKETS, TOKEN_PATTERN, NgramClassifier, blocks, buckets, presence

MASK = 2**64 - 1
TEXTS = st.text(st.characters(blacklist_categories=()), max_size=60)  # surrogates too
APOSTROPHES = st.text("nt'' ax.", max_size=25)
CASES = st.text("aIİıΣσςßǅ'. \n\N{COMBINING DOT ABOVE}", max_size=12)  # whose lower case is longer, or depends


def splitmix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & MASK
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ state >> 27) * 0x94D049BB133111EB & MASK
    return state ^ state >> 31


def reaches(tokens: list[str], place: int) -> bool:
    """Whether a negation stands at most three tokens before, and no punctuation from there on."""
    for before in range(place - 1, place - 4, -1):
        if before < 0 or tokens[before + 1][0] in '!?.,;:()"':
            return False
        if tokens[before] in ("not", "n't", "never", "cannot", "hardly", "nobody"):
            return True
    return False


def reference(text: str, max_ngram: int) -> dict[str, int]:
    """The bucket of each n-gram, one after the other in plain integers."""
    tokens = re.findall(TOKEN_PATTERN, text.lower())
    negated = [reaches(tokens, place) for place in range(len(tokens))]
    shown = [f"not_{token}" if one else token for token, one in zip(tokens, negated, strict=True)]
    found = {}
    for n in range(1, max_ngram + 1):
        for first in range(len(tokens) - n + 1):
            mixed = 0
            for at in range(first, first + n):
                numbers = [splitmix(place << 21 | ord(character)) for place, character in enumerate(tokens[at])]
                token_hash = sum(numbers) & MASK
                mixed = splitmix((mixed + (splitmix(token_hash) if negated[at] else token_hash)) & MASK)
            found[" ".join(shown[first : first + n])] = mixed >> 40
    return found


@pytest.fixture(scope="module")
def texts(reviews: pd.DataFrame) -> list[str]:
    return reviews["text"].tolist()


@pytest.fixture(scope="module")
def classifier(reviews: pd.DataFrame) -> NgramClassifier:
    train = reviews.head(600)
    return fit_ngrams(train["text"].tolist(), train["label"].to_numpy(), max_ngram=3, regularization=1.0)


def test_splitmix64_gives_its_published_numbers() -> None:
    """The first outputs of the reference implementation for the seed 1234567 (Vigna, prng.di.unimi.it)."""
    states = [(1234567 + step * 0x9E3779B97F4A7C15) & MASK for step in range(3)]
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [splitmix(state) for state in states] == published
    assert ngrams._mixed(np.array(states, np.uint64)).tolist() == published


def test_the_buckets_of_real_reviews_are_those_of_the_reference(texts: list[str]) -> None:
    for text in texts[::25]:
        assert buckets(text, 3).tolist() == sorted(set(reference(text, 3).values()))


@pytest.mark.parametrize("any_text", [TEXTS, APOSTROPHES, CASES], ids=["any", "apostrophes", "cases"])
def test_the_buckets_of_any_text_are_those_of_the_reference(any_text: st.SearchStrategy[str]) -> None:
    @given(text=any_text, max_ngram=st.integers(1, 4))
    @settings(max_examples=300)
    def same(text: str, max_ngram: int) -> None:
        found = buckets(text, max_ngram)
        assert found.tolist() == sorted(set(reference(text, max_ngram).values()))
        assert found.dtype == np.uint32 and (found < HASH_BUCKETS).all()

    same()


def test_a_bucket_stays_what_it_is() -> None:
    """A registered version's weights are of these buckets: another number here is another model."""
    expected = {"not": 8783254, "not_good": 8910080, "not not_good": 12515547}
    assert reference("Not good", 2) == expected
    assert buckets("Not good", 2).tolist() == sorted(expected.values())


def test_an_n_gram_is_its_tokens_in_their_order_and_no_others() -> None:
    assert len({*buckets("so good", 2), *buckets("good so", 2)}) == 4
    assert len({*buckets("ab c", 2), *buckets("a bc", 2), *buckets("abc", 2), *buckets("cba", 2)}) == 8
    assert len(buckets("good good good", 3)) == 3
    assert buckets("it's", 1).tolist() == buckets("'s it", 1).tolist()
    assert buckets("GOOD", 1).tolist() == buckets("good", 1).tolist()


@pytest.mark.parametrize("text", ["not good", "It isn't good", "never a very good film", "Nobody is good, is he?"])
def test_what_a_negation_reaches_is_another_word(text: str) -> None:
    assert not set(buckets("good", 1)) & set(buckets(text, 1))


@pytest.mark.parametrize("text", ["Not, good", "not a b c good", "not. Good", "good not"])
def test_a_negation_ends_at_punctuation_and_after_three_words(text: str) -> None:
    assert set(buckets("good", 1)) <= set(buckets(text, 1))


def test_a_negation_does_not_reach_into_the_next_text() -> None:
    _, together = presence(["It is not", "good"], 1)
    assert set(buckets("good", 1)) <= set(together)


@given(data=st.data())
@settings(max_examples=40)
def test_what_else_is_scored_changes_no_bucket_and_no_logit(
    texts: list[str], classifier: NgramClassifier, data: st.DataObject
) -> None:
    known = st.sampled_from(["", " ", "n't", "'", "x" * 70_000, *texts[:50]])
    company = data.draw(st.lists(st.one_of(known, TEXTS), max_size=400))
    starts, found = presence(company, 2)
    for row, text in enumerate(company):
        assert found[starts[row] : starts[row + 1]].tolist() == buckets(text, 2).tolist()
    alone = [classifier.logits([text])[0] for text in company]
    assert classifier.logits(company).tolist() == alone


@given(lengths=st.lists(st.integers(0, 2000), max_size=600))
def test_blocks_are_all_rows_in_order(lengths: list[int]) -> None:
    company = ["x" * 100 * length for length in lengths]
    rows = [row for block in blocks(company) for row in range(len(company))[block]]
    assert rows == list(range(len(company)))
    assert all(0 < block.stop - block.start <= 256 for block in blocks(company))


def test_a_logit_is_the_intercept_and_the_weight_of_each_feature_of_the_text(
    texts: list[str], classifier: NgramClassifier
) -> None:
    weight = dict(zip(classifier.kept.tolist(), classifier.weight.tolist(), strict=True))
    for text in texts[::40]:
        total = 0.0
        for bucket in buckets(text, 3).tolist():
            total += weight.get(bucket, 0.0)
        assert classifier.logits([text])[0] == total + classifier.intercept
        named = reference(text, 3)
        assert classifier.contributions(text) == {
            ngram: weight[bucket] for ngram, bucket in named.items() if weight.get(bucket)
        }
    assert classifier.logits(["- –", " "]).tolist() == [classifier.intercept] * 2
    assert classifier.logits([]).tolist() == []


def test_threads_share_a_classifier(texts: list[str], classifier: NgramClassifier) -> None:
    fresh = NgramClassifier(
        **{name: getattr(classifier, name) for name in ("max_ngram", "kept", "weight", "intercept")}
    )
    expected, found = classifier.logits(texts).tolist(), []
    threads = [threading.Thread(target=lambda: found.append(fresh.logits(texts).tolist())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_what_is_saved_is_what_is_loaded(classifier: NgramClassifier, tmp_path: Path) -> None:
    classifier.save(tmp_path / "one.npz")
    loaded = NgramClassifier.load(tmp_path / "one.npz")
    loaded.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert (loaded.max_ngram, loaded.intercept) == (classifier.max_ngram, classifier.intercept)
    np.testing.assert_array_equal(loaded.kept, classifier.kept)
    np.testing.assert_array_equal(loaded.weight, classifier.weight)


def test_a_damaged_file_does_not_load(classifier: NgramClassifier, tmp_path: Path) -> None:
    file = tmp_path / "ngrams.npz"
    classifier.save(file)
    whole = file.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for content in (b"", b"PK", whole[:-1000], whole[:1000], flipped, b"\x93NUMPY\x01\x00", b"subwords-1"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"ngrams\.npz is no n-gram classifier"):
            NgramClassifier.load(file)
    np.save(file.with_suffix(".npy"), np.zeros(3))
    with pytest.raises(ValueError, match="is no n-gram classifier"):
        NgramClassifier.load(file.with_suffix(".npy"))
    with pytest.raises(FileNotFoundError):
        NgramClassifier.load(tmp_path / "missing.npz")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"kept": [1, 2]}, "of one length"),
        ({"kept": [[1, 2, 3]], "weight": [[0.5, 0.25, 1.0]]}, "of one length"),
        ({"kept": [2, 1, 3]}, "not sorted"),
        ({"kept": [1, 1, 3]}, "not sorted"),
        ({"kept": [1, 2, HASH_BUCKETS]}, "not sorted buckets below"),
        ({"weight": [0.0, np.nan, 1.0]}, "not finite"),
        ({"intercept": np.inf}, "not finite"),
        ({"max_ngram": 0}, "less than one"),
    ],
)
def test_arrays_that_are_no_classifier_are_refused(wrong: dict, reason: str) -> None:
    given_ = {"max_ngram": 3, "kept": [1, 2, 3], "weight": [0.5, 0.25, 1.0], "intercept": 0.0} | wrong
    arrays = {"kept": np.array(given_["kept"], np.uint32), "weight": np.array(given_["weight"], np.float32)}
    with pytest.raises(ValueError, match=reason):
        NgramClassifier(**(given_ | arrays))


ELSEWHERE = """
import sys
from pathlib import Path
sys.path.insert(0, ".")
from travelled.ngrams import NgramClassifier
print(NgramClassifier.load(Path("ngrams.npz")).logits([Path("text").read_text(encoding="utf-8")])[0].hex())
foreign = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
assert foreign <= {"travelled", "numpy", "__main__"} | before, foreign - before
"""


def test_it_travels_with_the_tokenizer_and_numpy_alone(
    classifier: NgramClassifier, texts: list[str], tmp_path: Path
) -> None:
    package = tmp_path / "travelled"
    package.mkdir()
    for module in (ngrams, tokenizer):
        shutil.copy(inspect.getfile(module), package)
    classifier.save(tmp_path / "ngrams.npz")
    (tmp_path / "text").write_text(texts[0], encoding="utf-8")
    script = 'import sys\nbefore = {name.partition(".")[0] for name in sys.modules}\n' + ELSEWHERE
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float.fromhex(done.stdout) == classifier.logits(texts[:1])[0]


def test_arrays_of_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="not of the types uint32 and float32"):
        NgramClassifier(3, np.array([1, 2]), np.array([0.5, 0.25]), 0.0)

"""Data from tasks and from files: what is accepted, and one line for what is not."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from p2pfl.failure import Failure
from p2pfl.learning.data import from_csv, from_npz
from p2pfl.learning.data.tensors import as_tensors


class Rows(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


INPUTS = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
TARGETS = [0, 2, 1]


@pytest.mark.parametrize(
    "data",
    [
        (INPUTS, TARGETS),
        [np.array(INPUTS), np.array(TARGETS, dtype=np.uint8)],
        (np.array(INPUTS, dtype=">f8"), np.array(TARGETS, dtype=">i2")),
        (np.array(INPUTS, dtype=np.uint8), np.array(TARGETS, dtype=np.uint64)),
        (torch.tensor(INPUTS, dtype=torch.float64).T.contiguous().T, torch.tensor(TARGETS, dtype=torch.int32)),
        (torch.tensor(INPUTS, requires_grad=True), TARGETS),
        TensorDataset(torch.tensor(INPUTS), torch.tensor(TARGETS)),
        Rows([(torch.tensor(x), y) for x, y in zip(INPUTS, TARGETS, strict=True)]),
        Rows(list(zip(INPUTS, TARGETS, strict=True))),
    ],
    ids=lambda data: type(data).__name__,
)
def test_pairs_and_datasets_become_the_same_two_tensors(data):
    inputs, targets = as_tensors(data)
    assert inputs.dtype == torch.float32 and inputs.tolist() == INPUTS and inputs.is_contiguous() and not inputs.requires_grad
    assert targets.dtype == torch.int64 and targets.tolist() == TARGETS


def test_whole_inputs_stay_whole_for_embeddings_and_real_targets_stay_real():
    inputs, targets = as_tensors((np.array([[1, 2]]), [0.5]))
    assert inputs.dtype == torch.int64 and targets.dtype == torch.float32


def test_an_array_that_must_not_be_written_is_copied():
    fixed = np.array(INPUTS, dtype=np.float32)
    fixed.flags.writeable = False
    inputs, _ = as_tensors((fixed, TARGETS))
    inputs += 1
    assert fixed.tolist() == INPUTS


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ((INPUTS, [0, 1]), r"inputs \[3, 2\] and targets \[2\]"),
        (([], []), "has no rows"),
        (([[1.0], [float("nan")]], [0, 1]), "not finite in row 1"),
        (([[1e300]], [0]), "not finite in row 0"),
        (([[1.0]], [float("inf")]), "targets of x are not finite"),
        (([[1.0], [2.0, 3.0]], [0, 1]), "do not fit in one array"),
        ((INPUTS, ["a", "b", "c"]), "number the classes"),
        ((np.array([1j]), [0]), "do not fit|complex"),
        ((INPUTS, TARGETS, TARGETS), "tuple of 3"),
        (np.zeros((3, 2)), "is a ndarray"),
        (None, "NoneType"),
        ((5.0, 1), "one target for every input row"),
        (DataLoader(Rows([(1.0, 0)])), "Give its .dataset"),
        (Rows([1.0, 2.0]), "item 0 of x is a float"),
        (Rows([(torch.zeros(1), 0), (torch.zeros(2), 0)]), "do not fit in one array"),
    ],
)
def test_other_data_are_refused_in_one_line(data, says):
    with pytest.raises(Failure, match=says) as failure:
        as_tensors(data, "x")
    assert "\n" not in str(failure.value)


def test_an_npz_gives_back_its_arrays(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.array(INPUTS), y=np.array(TARGETS))
    x, y = from_npz(tmp_path / "a.npz", inputs="x", targets="y")
    assert x.tolist() == INPUTS and y.tolist() == TARGETS


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_an_npz_with_a_pickle_is_refused_and_nothing_in_it_runs(tmp_path):
    np.savez(tmp_path / "a.npz", inputs=np.array([Bomb()], dtype=object), targets=np.array([1]))
    with pytest.raises(Failure, match="pickles, which are never loaded"):
        from_npz(tmp_path / "a.npz")


def test_other_files_are_no_npz(tmp_path):
    import pickle

    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "whole.npz", inputs=np.arange(1000.0), targets=np.arange(1000))
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "torn.npz").write_bytes(content[: len(content) // 2])
    (tmp_path / "flipped.npz").write_bytes(content[:3000] + b"\xff" + content[3001:])
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, np.arange(3))
    for name in ("pickle", "text", "empty", "torn", "flipped", "single"):
        with pytest.raises(Failure, match=name):
            from_npz(tmp_path / f"{name}.npz")
    with pytest.raises(Failure, match="No such file"):
        from_npz(tmp_path / "none.npz")
    with pytest.raises(Failure, match="Did you mean 'inputs'"):
        from_npz(tmp_path / "whole.npz", inputs="input")


@pytest.fixture
def table(tmp_path):
    def write(text, **how):
        (tmp_path / "ward.csv").write_text(text, encoding="utf-8")
        return from_csv(tmp_path / "ward.csv", **{"target": "ill", **how})

    return write


def test_a_csv_gives_the_columns_in_their_order_and_the_target_beside(table):
    inputs, targets = table("age,ill,pulse\n40,0,61.5\n\n50,1,72\n")
    assert inputs.dtype == np.float32 and inputs.tolist() == [[40, 61.5], [50, 72]]
    assert targets.dtype == np.int64 and targets.tolist() == [0, 1]


def test_text_targets_are_numbered_by_the_given_labels_even_where_a_file_lacks_one(table):
    _, targets = table("\ufeffage,ill\n40,yes\n50, yes\n", labels=("no", "yes"))
    assert targets.tolist() == [1, 1]


def test_real_targets_stay_real(table):
    assert table("age;ill\n40;0.5\n50;1\n", delimiter=";")[1].tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("text", "how", "says"),
    [
        ("age,ill\n40,0\n,1\n", {}, "line 3 column 'age': the cell is empty"),
        ("age,ill\n40,0\nold,1\n", {}, "line 3 column 'age': 'old' is no number"),
        ("age,ill\nnan,0\n", {}, "line 2 column 'age': nan is not a finite"),
        ("age,ill\n1e99,0\n", {}, "not a finite float32"),
        ("age,ill\n40,0\n50,x\n", {}, "line 3 column 'ill': 'x' is no number"),
        ("age,ill\n40,no\n50,yes\n", {}, r"labels=\('no', 'yes'\)"),
        ("age,ill\n40,no\n50,yess\n", {"labels": ("no", "yes")}, "line 3 column 'ill': 'yess' is not .* Did you mean 'yes'"),
        ("age,ill\n40,0,1\n", {}, "line 2: 3 cells for 2 columns"),
        ("age,ill\n40,0\n", {"target": "il"}, "Did you mean 'ill'"),
        ("age,age\n40,0\n", {}, "two columns are called 'age'"),
        ("age;ill\n40;0\n", {}, "only one column"),
        ("age,ill\n", {}, "no rows"),
        ('age,ill\n"40,0\n', {}, "line 2"),
    ],
)
def test_a_wrong_csv_is_one_line_with_line_and_column(table, text, how, says):
    with pytest.raises(Failure, match=says) as failure:
        table(text, **how)
    assert "\n" not in str(failure.value)


def test_a_csv_that_is_missing_or_no_text_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Failure, match="not text in UTF-8"):
        from_csv(tmp_path / "a.csv", target="ill")
    with pytest.raises(Failure, match="No such file"):
        from_csv(tmp_path / "b.csv", target="ill")

"""Columns of sessions and vectors through the reader, the loader, and made-up data."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from common.errors import UserError
from modeling import data
from modeling.data import Sessions, read_sessions, sessions_of
from modeling.inputs.features import TabularSequenceFeatures
from modeling.inputs.tabular_features import TabularFeatures
from modeling.loader import DataLoader, EmbeddingOperator, MerlinDataLoader
from modeling.loading import SessionStream
from modeling.schema import ColumnSchema, Feature, Schema, features_of
from modeling.sequence import most_recent, without_last
from modeling.synthetic import SyntheticData, random_columns

ITEM = Feature("item_id", "categorical", 10, 3, True)
COUNTRY = Feature("country", "categorical", 4, sequence=False)
AGE = Feature("age", "continuous", sequence=False)
TEXT = Feature("text", "embedding", width=2)
PROFILE = Feature("profile", "embedding", sequence=False, width=2)
HOBBIES = Feature("hobbies", "categorical", 9, sequence=False)
ALL = [ITEM, COUNTRY, AGE, TEXT, PROFILE, HOBBIES]
F32 = pa.float32()


def table(text: pa.DataType | None = None) -> pa.Table:
    return pa.table(
        {
            "item_id": pa.array([[3, 4, 5], [6], [7, 8]]),
            "country": [1, 2, 3],
            "age": [0.5, None, 1.5],
            "text": pa.array([[[1, 2], None, [5, 6]], [[7, 8]], [[9, 10], [11, 12]]], text or pa.list_(pa.list_(F32))),
            "profile": pa.array([[1, 2], None, [3, 4]], pa.list_(F32)),
            "hobbies": pa.array([[1, 2], [], [8]]),
        }
    )


@pytest.mark.parametrize("inner", [pa.list_(F32), pa.list_(F32, 2), pa.large_list(pa.float64())], ids=str)
def test_vectors_and_columns_of_sessions_are_read(inner: pa.DataType, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    given = table(pa.list_(inner))
    if pa.types.is_fixed_size_list(inner):  # parquet cannot hold such lists where some are missing
        sessions = sessions_of(given, ALL)
    else:
        pq.write_table(given.slice(0, 1), tmp_path / "train" / "a.parquet")
        pq.write_table(given.slice(1), tmp_path / "train" / "b.parquet")
        sessions = read_sessions(tmp_path, "train", ALL)
    assert sessions.offsets.tolist() == [0, 3, 4, 6]
    assert sessions.values["text"].tolist() == [[1, 2], [0, 0], [5, 6], [7, 8], [9, 10], [11, 12]]
    assert sessions.values["profile"].tolist() == [[1, 2], [0, 0], [3, 4]]
    assert sessions.values["country"].tolist() == [1, 2, 3]
    assert sessions.values["age"].isnan().tolist() == [False, True, False]
    assert sessions.values["hobbies"].tolist() == [[1, 2], [0, 0], [8, 0]]
    assert sessions.whole == {"country", "age", "profile", "hobbies"}
    columns = sessions.padded(torch.tensor([0, 2]), 2)
    assert columns["item_id"].tolist() == [[4, 5], [7, 8]]
    assert columns["text"].tolist() == [[[0, 0], [5, 6]], [[9, 10], [11, 12]]]
    assert columns["country"].tolist() == [1, 3]
    assert columns["profile"].tolist() == [[1, 2], [3, 4]]
    assert columns["hobbies"].tolist() == [[1, 2], [8, 0]]
    assert sessions.padded(torch.tensor([1, 0]), 9)["text"][0].tolist() == [[7, 8], [0, 0], [0, 0]]


def test_vectors_of_a_fixed_size_are_read_from_parquet(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    texts = pa.array([[[1, 2], [3, 4]], [[5, 6]]], pa.list_(pa.list_(F32, 2)))
    pq.write_table(pa.table({"item_id": [[3, 4], [5]], "text": texts}), tmp_path / "train" / "a.parquet")
    assert read_sessions(tmp_path, "train", [ITEM, TEXT]).values["text"].tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (Feature("text", "embedding", width=3), "'text' of the table holds a vector of 2 numbers, its schema says 3"),
        (Feature("item_id", "embedding", width=3), "'item_id' of the table is int64 where vectors must be"),
        (Feature("item_id", "continuous", sequence=False), "'item_id' of the table is list.*one number a row"),
        (Feature("text", "continuous"), "'text' of the table is not float"),
        (Feature("country", "categorical", 3, sequence=False), "codes from 1 to 3, its schema allows 1 to 2"),
        (Feature("age", "categorical", 3, sequence=False), "empty values"),
        (Feature("other", "continuous"), "no column 'other'"),
    ],
)
def test_columns_of_another_kind_are_told(feature: Feature, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sessions_of(table(), [feature])


def test_the_most_recent_events_are_kept_with_all_their_features() -> None:
    columns = sessions_of(table(), ALL).padded(torch.arange(3), 9)
    recent = most_recent(columns, "item_id", 2)
    assert recent["item_id"].tolist() == [[4, 5], [6, 0], [7, 8]]
    assert recent["text"].tolist() == [[[0, 0], [5, 6]], [[7, 8], [0, 0]], [[9, 10], [11, 12]]]
    assert recent["country"].tolist() == [1, 2, 3]
    left, target = without_last(columns, "item_id")
    assert target.tolist() == [5, 6, 8]
    assert left["item_id"].tolist() == [[3, 4, 0], [0, 0, 0], [7, 0, 0]]
    assert left["text"].tolist() == [[[1, 2], [0, 0], [0, 0]], [[0, 0]] * 3, [[9, 10], [0, 0], [0, 0]]]
    assert torch.equal(left["profile"], columns["profile"])


def test_a_vector_as_wide_as_the_session_is_long_is_no_sequence_when_told_so() -> None:
    columns = {"item_id": torch.tensor([[3, 4]]), "profile": torch.tensor([[1.0, 2.0]])}
    events = {"item_id"}
    assert without_last(columns, "item_id", events)[0]["profile"].tolist() == [[1, 2]]
    assert most_recent(columns, "item_id", 1, events)["profile"].tolist() == [[1, 2]]
    assert most_recent(columns, "item_id", 1, events)["item_id"].tolist() == [[4]]


def schema(**more: Any) -> Any:
    domain = {"properties": {"domain": {"min": 0, "max": 9}}}
    listed = {"is_list": True, "is_ragged": True}
    columns = [
        ColumnSchema("item_id", dtype="int64", tags=["item_id", "categorical"], **domain, **listed),
        ColumnSchema("country", dtype="int64", tags=["categorical"], **domain),
        ColumnSchema("age", dtype="float32", tags=["continuous"]),
        ColumnSchema("text", dtype="float32", tags=["embedding"], dims=(None, (0, 9), 2)),
    ]
    return Schema([*columns, *(ColumnSchema(name, **arguments) for name, arguments in more.items())])


BOUGHT: dict[str, Any] = {"dtype": "int64", "tags": ["binary_classification"]}


def test_batches_come_in_the_order_of_the_rows_with_the_most_recent_events(tmp_path: Path) -> None:
    pq.write_table(table().slice(0, 2), tmp_path / "a.parquet")
    pq.write_table(table().slice(2), tmp_path / "b.parquet")
    for given in (tmp_path, str(tmp_path / "*.parquet"), [tmp_path / "a.parquet", tmp_path / "b.parquet"], table()):
        loader = MerlinDataLoader.from_schema(schema(), given, batch_size=2, max_sequence_length=2, shuffle=False)
        assert len(loader) == 2
        for _ in range(2):  # every pass is the same
            first, second = list(loader)
            assert first["item_id"].tolist() == [[4, 5], [6, 0]]
            assert first["country"].tolist() == [1, 2]
            assert second["text"].tolist() == [[[9, 10], [11, 12]]]
            assert set(first) == {"item_id", "country", "age", "text"}
    whole = next(iter(DataLoader.from_schema(schema(), table(), 3, shuffle=False)))
    assert whole["item_id"].shape == (3, 3)


def test_targets_come_apart_from_the_inputs() -> None:
    given = table().append_column("bought", pa.array([0, 1, 1])).append_column("grade", pa.array([0.5, 1.5, 2.5]))
    tagged = schema(bought=BOUGHT, grade={"dtype": "float32", "tags": ["regression"]})
    loader = MerlinDataLoader.from_schema(tagged, given, 3, shuffle=False)
    ((inputs, targets),) = loader
    assert targets["bought"].tolist() == [0, 1, 1]
    assert targets["bought"].dtype == torch.int64
    assert targets["grade"].tolist() == [0.5, 1.5, 2.5]
    assert not {"bought", "grade"} & set(inputs)
    ((_, only),) = MerlinDataLoader.from_schema(tagged, given, 3, shuffle=False, targets=["grade"])
    assert set(only) == {"grade"}


def test_shuffling_shows_every_session_once_and_differs_from_pass_to_pass() -> None:
    sessions = Sessions({"item_id": torch.arange(1, 101)}, torch.arange(101))
    loader = MerlinDataLoader(sessions, 8, shuffle=True, seed=3)
    passes = [torch.cat([batch["item_id"][:, 0] for batch in loader]).tolist() for _ in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(1, 101))
    assert passes[0] != passes[1]
    short = MerlinDataLoader(sessions, 8, shuffle=True, drop_last=True)
    assert [len(batch["item_id"]) for batch in short] == [8] * 12
    assert len(short) == 12
    assert len(loader) == 13


def test_streamed_batches_are_those_of_memory(tmp_path: Path) -> None:
    bought = table().append_column("bought", pa.array([0, 1, 1]))
    pq.write_table(bought.slice(0, 2), tmp_path / "a.parquet", row_group_size=1)
    pq.write_table(bought.slice(2), tmp_path / "b.parquet")
    tagged = schema(bought=BOUGHT)
    streamed, memory = (
        MerlinDataLoader.from_schema(
            tagged, tmp_path, batch_size=2, max_sequence_length=2, shuffle=False, in_memory=in_memory,
            transforms=[EmbeddingOperator(torch.ones(10, 2))],
        )
        for in_memory in (False, True)
    )  # fmt: skip
    assert isinstance(streamed.dataset, SessionStream)
    assert isinstance(memory.dataset, Sessions)
    assert len(streamed) == len(memory) == 2
    for (inputs, targets), (expected, answers) in zip(streamed, memory, strict=True):
        assert inputs.keys() == expected.keys()
        for name, column in inputs.items():
            torch.testing.assert_close(column, expected[name], equal_nan=True)
        assert targets["bought"].dtype == torch.int64
        assert torch.equal(targets["bought"], answers["bought"])
    again = iter(streamed)
    next(again)
    state = streamed.state_dict()
    streamed.load_state_dict(state)
    ((inputs, _),) = streamed
    assert inputs["country"].tolist() == [3]
    assert len(list(streamed)) == 2, "the next pass is whole"


def test_large_files_and_several_processes_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(table(), file)
    arguments: dict[str, Any] = {"schema": schema(), "paths_or_dataset": file, "batch_size": 1}
    shares = [MerlinDataLoader.from_schema(**arguments, global_size=2, global_rank=rank) for rank in (0, 1)]
    assert {int(batch["country"]) for share in shares for batch in share} == {1, 2, 3}
    assert [len(share) for share in shares] == [2, 2]
    options = {"buffer_size": 2, "parts_per_chunk": 3, "reader_kwargs": {"memory_map": True, "row_groups_per_part": 1}}
    stream = MerlinDataLoader.from_schema(**arguments, in_memory=False, **options).sessions
    assert isinstance(stream, SessionStream)
    assert (stream.buffer_size, stream.open_parts, stream.reader) == (2, 3, {"memory_map": True})
    stream = MerlinDataLoader.from_schema(**arguments, in_memory=False, buffer_size=0.06).sessions
    assert isinstance(stream, SessionStream)
    assert stream.buffer_size > 1000
    stream = MerlinDataLoader.from_schema(**arguments, in_memory=False, max_events=4).sessions
    assert isinstance(stream, SessionStream)
    assert (stream.batch_size, stream.max_events) == (None, 4)
    assert all(batch["item_id"].numel() <= 4 for _, batch in stream)
    # 8 bytes a value: 6 items, 11 numbers of texts (a missing one counts once), 3 countries, 3 ages.
    assert stream.parts[0].size == 8 * 23
    assert isinstance(MerlinDataLoader.from_schema(**arguments).sessions, Sessions)
    monkeypatch.setattr("modeling.loader.IN_MEMORY_BYTES", 183)
    assert isinstance(MerlinDataLoader.from_schema(**arguments).sessions, SessionStream)
    assert isinstance(MerlinDataLoader.from_schema(**arguments, in_memory=True).sessions, Sessions)


def test_what_cannot_be_streamed_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="need parquet files"):
        MerlinDataLoader.from_schema(schema(), table(), 2, in_memory=False)
    with pytest.raises(UserError, match="need parquet files"):
        MerlinDataLoader.from_schema(schema(), table(), 2, global_size=2)
    with pytest.raises(UserError, match="max_events is for streamed sessions"):
        MerlinDataLoader.from_schema(schema(), table(), 2, max_events=4)
    with pytest.raises(UserError, match="only streamed sessions can be resumed"):
        MerlinDataLoader.from_schema(schema(), table(), 2).state_dict()
    file = tmp_path / "a.parquet"
    pq.write_table(table().append_column("bought", pa.array([0, None, 1])), file)
    with pytest.raises(UserError, match="leave in_memory=True out"):
        MerlinDataLoader.from_schema(schema(), file, 2, in_memory=True, global_size=2)
    with pytest.raises(UserError, match="target 'bought' has empty values"):
        list(MerlinDataLoader.from_schema(schema(bought=BOUGHT), file, 2, in_memory=False))


def test_frames_and_chosen_columns_are_taken() -> None:
    frame = pd.DataFrame({"item_id": [[3, 4], [5]], "country": [1, 2], "age": [0.5, 1.0]})
    loader = MerlinDataLoader.from_schema(
        schema().select_by_name(["item_id", "country", "age"]), frame, 2, shuffle=False, continuous_features=[]
    )
    (batch,) = loader
    assert {name: value.tolist() for name, value in batch.items()} == {"item_id": [[3, 4], [5, 0]], "country": [1, 2]}
    again = MerlinDataLoader.from_schema(schema().select_by_name(["item_id"]), loader.dataset, 2, shuffle=False)
    assert next(iter(again)).keys() == {"item_id"}


def test_what_a_loader_cannot_use_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no parquet files"):
        MerlinDataLoader.from_schema(schema(), tmp_path, 2)
    with pytest.raises(UserError, match="no column 'text'"):
        MerlinDataLoader.from_schema(schema(), table().drop_columns(["text"]), 2)
    with pytest.raises(UserError, match="no target column 'bought'"):
        MerlinDataLoader.from_schema(schema(), table(), 2, targets=["bought"])
    with pytest.raises(ValueError, match="batch_size"):
        MerlinDataLoader.from_schema(schema(), table(), 0)
    with pytest.raises(UserError, match="the code 8, and there are 8 embeddings"):
        list(MerlinDataLoader.from_schema(schema(), table(), 9, transforms=[EmbeddingOperator(torch.ones(8, 2))]))


def test_vectors_are_looked_up_while_batches_are_made() -> None:
    matrix = torch.arange(20).reshape(10, 2).float() + 1
    plain = schema().select_by_name(["item_id"])
    operator = EmbeddingOperator(matrix, "item_id", "vectors")
    loader = MerlinDataLoader.from_schema(plain, table(), 3, shuffle=False, transforms=[operator])
    (batch,) = loader
    assert batch["vectors"].tolist() == [
        [[7, 8], [9, 10], [11, 12]],
        [[13, 14], [0, 0], [0, 0]],
        [[15, 16], [17, 18], [0, 0]],
    ]
    inputs = TabularSequenceFeatures.from_schema(loader.output_schema, max_sequence_length=5, masking="clm")
    assert inputs.features[-1] == Feature("vectors", "embedding", width=2)
    torch.testing.assert_close(inputs.embed(batch)[..., -2:], batch["vectors"])


def test_made_up_sessions_fit_their_schema_and_the_inputs() -> None:
    found: SyntheticData = data.tabular_sequence_testing_data
    assert found is data.tabular_sequence_testing_data
    batch = found.torch_synthetic_data(num_rows=30, min_session_length=2, max_session_length=7)
    items = batch["item_id"]
    n = (items != 0).sum(1)
    assert items.shape == (30, int(n.max()))
    assert 2 <= n.min() <= n.max() <= 7
    assert torch.equal(items != 0, torch.arange(items.shape[1]) < n[:, None]), "padded on the right"
    for feature in features_of(found.schema):
        column = batch[feature.name]
        assert column.shape == (items.shape if feature.sequence else (30,))
        if feature.kind == "categorical":
            assert column.max() < feature.cardinality
            assert column[items != 0].min() >= 1 if feature.sequence else column.min() >= 1
    assert set(batch["purchase"].tolist()) == {0, 1}
    inputs = TabularSequenceFeatures.from_schema(found.schema, masking="clm", d_output=8, continuous_projection=4)
    assert inputs(batch, training=True).values.shape == (30, items.shape[1] - 1, 8)
    assert torch.equal(found.torch_synthetic_data(seed=4)["item_id"], found.torch_synthetic_data(seed=4)["item_id"])
    with pytest.raises(ValueError, match="min_session_length"):
        found.torch_synthetic_data(min_session_length=9, max_session_length=8)


def test_made_up_rows_fit_their_schema_and_the_inputs() -> None:
    found: SyntheticData = data.tabular_testing_data
    batch = found.torch_synthetic_data(num_rows=20)
    assert batch["item_id"].shape == (20,)
    assert batch["categories"].shape[1] <= 4
    assert batch["rating"].dtype == torch.float32
    inputs = TabularFeatures.from_schema(found.schema, aggregation="concat", continuous_projection=8)
    assert inputs(batch).shape == (20, inputs.output_dim)
    assert not {"click", "rating"} & set(inputs.feature_names)
    frame = pa.table(
        {
            name: [[code for code in row if code] for row in column.tolist()] if column.dim() > 1 else column.tolist()
            for name, column in batch.items()
        }
    )
    ((again, targets),) = MerlinDataLoader.from_schema(found.schema, frame, 20, shuffle=False)
    assert torch.equal(again["categories"], batch["categories"])
    assert torch.equal(targets["click"], batch["click"])
    torch.testing.assert_close(inputs(again), inputs(batch))


def test_random_columns_have_the_shapes_that_models_take() -> None:
    columns = random_columns(ALL, [3, 1])
    shapes = {name: tuple(column.shape) for name, column in columns.items()}
    assert shapes == {
        "item_id": (2, 3), "country": (2,), "age": (2,), "text": (2, 3, 2), "profile": (2, 2), "hobbies": (2,),
    }  # fmt: skip
    assert columns["text"][1, 1:].eq(0).all()
    assert columns["item_id"][columns["item_id"] != 0].min() >= 3

"""Schemas as Transformers4Rec keeps them: JSON and the text form of protobuf."""

import json
from pathlib import Path
from typing import Any

import pytest

import modeling as tr
from common.errors import UserError
from modeling.inputs.features import TabularSequenceFeatures
from modeling.schema import Feature, _merlin, features_of, max_length_of, target_names

JSON = {
    "feature": [
        {
            "name": "sess_id",
            "type": "INT",
            "intDomain": {"name": "sess_id", "min": "1", "max": "900000"},
            "annotation": {"tag": ["groupby_col"]},
        },
        {"name": "day", "annotation": {}},
        {
            "name": "product/list",
            "valueCount": {"min": "2", "max": "20"},
            "type": "INT",
            "intDomain": {"name": "product/list", "min": "1", "max": "390000", "isCategorical": True},
            "annotation": {"tag": ["item_id", "list", "categorical", "item"]},
        },
        {
            "name": "hour_sin/list",
            "valueCount": {"min": "2", "max": "20"},
            "type": "FLOAT",
            "floatDomain": {"name": "hour_sin/list", "min": -1.0, "max": 1.0},
            "annotation": {"tag": ["continuous", "time", "list"]},
        },
        {
            "name": "title_vector",
            "valueCount": {"min": "2", "max": "20"},
            "type": "FLOAT",
            "shape": {"dim": [{"size": "16"}]},
            "annotation": {"tag": ["embedding", "list"]},
        },
        {
            "name": "region",
            "type": "INT",
            "intDomain": {"name": "sess_id", "min": "1", "max": "62", "isCategorical": True},
            "annotation": {"tag": ["categorical"]},
        },
        {
            "name": "user_age",
            "type": "FLOAT",
            "floatDomain": {"name": "user_age", "max": 0.41},
            "annotation": {"tag": ["continuous"]},
        },
        {
            "name": "customer",
            "type": "INT",
            "intDomain": {"name": "customer", "max": "500", "isCategorical": True},
            "annotation": {"tag": ["user_id", "user", "categorical"]},
        },
        {"name": "bought", "type": "INT", "annotation": {"tag": ["binary_classification"]}},
    ]
}
FEATURES = [
    Feature("product/list", "categorical", 390_001, 1, True),
    Feature("region", "categorical", 63, 1, sequence=False, domain="sess_id"),
    Feature("hour_sin/list", "continuous"),
    Feature("user_age", "continuous", sequence=False),
    Feature("title_vector", "embedding", width=16),
]
PBTXT = """
feature {
  name: "product"
  value_count { min: 2 max: 20 }
  type: INT
  int_domain { name: "product" min: 1 max: 1400 is_categorical: true }
  annotation { tag: "item_id" tag: "list" tag: "categorical" tag: "item" }
}
feature {
  name: "price"
  value_count { min: 2 max: 20 }
  type: FLOAT
  float_domain { name: "price" min: -10.5 max: 10.0 }
  annotation { tag: "item" tag: "list" tag: "continuous" }
}
feature {
  name: "rating"
  type: FLOAT
  annotation { tag: "regression" tag: "target" }
}
"""


def read(text: str | Path) -> Any:
    return tr.Schema().from_json(text)


def test_json_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(JSON))
    for given in (str(path), path, json.dumps(JSON), json.dumps(JSON, indent=2).encode()):
        schema = read(given)
        assert features_of(schema) == FEATURES
        assert schema.column_names == [feature["name"] for feature in JSON["feature"]]
    assert features_of(tr.read_schema(path)) == FEATURES
    assert schema.item_id_column_name == "product/list"
    assert schema.categorical_cardinalities() == {"product/list": 390_001, "region": 63, "customer": 501}
    assert schema.embedding_sizes()["region"] == 6  # 2 * 63 ** 0.25 = 5.6
    assert max_length_of(schema) == 20
    assert target_names(schema) == ["bought"]


def test_pbtxt_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "schema.pbtxt"
    path.write_text(PBTXT)
    for schema in (
        tr.Schema().from_proto_text(PBTXT),
        tr.Schema().from_proto_text(str(path)),
        tr.read_schema(tmp_path),
    ):
        assert features_of(schema) == [Feature("product", "categorical", 1401, 1, True), Feature("price", "continuous")]
        assert target_names(schema) == ["rating"]
        assert max_length_of(schema) == 20


def test_what_is_written_is_read_again() -> None:
    schema = read(json.dumps(JSON))
    schema["title_vector"] = schema["title_vector"].with_properties({"reserved_ids": 3})
    assert features_of(read(schema.to_json())) == FEATURES
    assert features_of(tr.Schema().from_proto_text(schema.to_proto_text())) == FEATURES


def test_columns_are_selected() -> None:
    schema = read(json.dumps(JSON))
    assert schema.select_by_tag("item_id").column_names == ["product/list"]
    assert schema.select_by_tag(tr.Tags.ITEM_ID).column_names == ["product/list"]
    assert schema.select_by_tag(["time", "embedding"]).column_names == ["hour_sin/list", "title_vector"]
    assert schema.select_by_type("float").column_names == ["hour_sin/list", "title_vector", "user_age"]
    assert schema.remove_by_type(["float", "int"]).column_names == ["day"]
    assert schema.select_by_type("int64").column_names == ["sess_id", "product/list", "region", "customer", "bought"]
    assert schema.select_by_name(["user_age", "none"]).column_names == ["user_age"]
    assert schema.select_by_name(lambda name: name.endswith("/list")).column_names == ["product/list", "hour_sin/list"]
    assert len(schema.remove_by_tag(["categorical", "continuous"])) == 4
    assert schema.filter_columns_from_dict({"region": 1, "other": 2}) == {"region": 1}
    # What is selected is of the same class: it selects and asks as the whole does.
    part = schema.select_by_tag("categorical").remove_by_name("region") + schema.select_by_name("user_age")
    assert part.item_id_column_name == "product/list"
    assert part[["customer"]].categorical_cardinalities() == {"customer": 501}
    with pytest.raises(ValueError, match="item_id"):
        _ = schema.select_by_name("region").item_id_column_name


def test_inputs_take_schemas_of_merlin_and_of_this_library() -> None:
    own = read(json.dumps(JSON))
    for schema in (own, _merlin().Schema(own.column_schemas)):
        inputs = TabularSequenceFeatures.from_schema(schema, masking="clm", embedding_dim_default=4)
        assert inputs.features == FEATURES
        assert inputs.max_sequence_length == 20


def test_the_users_id_is_an_input_where_it_is_asked_for() -> None:
    schema = read(json.dumps(JSON))
    names = [feature.name for feature in features_of(schema, categorical_tags=["categorical", "user_id"])]
    assert names == ["product/list", "customer", "region", "hour_sin/list", "user_age", "title_vector"]


def test_a_vector_of_unknown_width_is_told() -> None:
    schema = read(json.dumps(JSON))
    schema["title_vector"] = _merlin().ColumnSchema(
        "title_vector", dtype="float32", tags=["embedding"], is_list=True, is_ragged=True
    )
    with pytest.raises(UserError, match="'title_vector' of the schema is an embedding of unknown width"):
        features_of(schema)
    assert FEATURES[-1] not in features_of(schema, embedding_tags=None)

"""Engines that know nothing of stores read the same from an export as SQL does here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tracefork_backend as tf
from stored import START, record

DAY = 86_400_000_000_000
SUMS = "count(*) c, sum(input_tokens) t, round(sum(cost_usd), 9) u, count(distinct run_id) r"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[object, ...]]:
    """A folder with an export of each kind, and what SQL says of the store."""
    folder = tmp_path_factory.mktemp("lake")
    for day in range(3):
        record(folder / "store", at=START + day * DAY, steps=day + 1)
    with tf.open_store(folder / "store") as store:
        tf.export(store, folder / "parquet", to="parquet")
        if _has("deltalake"):
            tf.export(store, folder / "delta", to="delta")
        (said,) = store.answer(f"select {SUMS} from exchanges").rows
    return folder, said


def _has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


@pytest.mark.slow
def test_polars(lake: tuple[Path, tuple[object, ...]]) -> None:
    """Both formats, by day too."""
    pl = pytest.importorskip("polars")
    folder, said = lake
    for found in (
        pl.scan_parquet(folder / "parquet" / "exchanges"),
        pl.scan_delta(str(folder / "delta" / "exchanges")),
    ):
        row = found.select(
            pl.len(), pl.sum("input_tokens"), pl.sum("cost_usd").round(9), pl.n_unique("run_id")
        ).collect()
        assert row.row(0) == said
        assert found.group_by("day").len().collect().height == 3


@pytest.mark.slow
def test_clickhouse(lake: tuple[Path, tuple[object, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """chdb, which is ClickHouse in the process, and reads Delta only below the current folder."""
    chdb = pytest.importorskip("chdb")
    folder, said = lake
    monkeypatch.chdir(folder)
    for source in (
        f"file('{folder}/parquet/exchanges/*/*.parquet')",
        f"deltaLakeLocal('{folder}/delta/exchanges')",
    ):
        row = chdb.query(f"select {SUMS} from {source}", "CSV").bytes().decode().strip()
        assert [float(one) for one in row.split(",")] == [float(str(one)) for one in said]


@pytest.mark.slow
def test_spark(lake: tuple[Path, tuple[object, ...]]) -> None:
    """Spark itself, where there is Java for it."""
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("no Java")
    folder, said = lake
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    builder = sql.SparkSession.builder.master("local[1]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    try:
        session.read.parquet(str(folder / "parquet" / "exchanges")).createOrReplaceTempView("exchanges")
        (row,) = session.sql(f"select {SUMS} from exchanges").collect()
        assert tuple(row) == said
        assert session.sql("select count(distinct day) from exchanges").collect()[0][0] == 3
    finally:
        session.stop()

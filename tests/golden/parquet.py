"""Writes tests/golden/parquet/: small datasets as the Hugging Face Hub has them.

Needs PyArrow and Pillow. The files are those of two splits in two shards (snappy), of one split with
dictionaries, version 2 pages and an index of pages (zstd), of plain bytes without classes (plain), with
pages of both versions (gzip), and compressed in ways that are not read (brotli, lz4).
"""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).parent / "parquet"


def picture(i: int) -> bytes:
    label = i * 7 % 3
    image = Image.new("RGB", (8, 6))
    image.putdata([(x * 30, y * 40, label * 80 + i) for y in range(6) for x in range(8)])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def table(numbers: range) -> pa.Table:
    images = [{"bytes": picture(i), "path": f"{i}.png" if i % 2 else None} for i in numbers]
    features = {
        "img": {"_type": "Image"},
        "label": {"names": ["cat", "dog", "fox"], "_type": "ClassLabel"},
    }
    schema = pa.schema(
        [
            ("img", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    labels = [i * 7 % 3 for i in numbers]
    return pa.table({"img": images, "label": labels}, schema=schema)


def write(name: str, content: pa.Table, **options) -> None:
    path = ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, **options)


# The defaults, with row groups of few rows.
write("snappy/data/train-00000-of-00002.parquet", table(range(0, 14)), row_group_size=10)
write("snappy/data/train-00001-of-00002.parquet", table(range(14, 24)), row_group_size=10)
write("snappy/data/test-00000-of-00001.parquet", table(range(0, 2)))
write(
    "zstd/train.parquet",
    table(range(24)),
    compression="zstd",
    data_page_version="2.0",
    data_page_size=300,
    write_batch_size=4,
    write_page_index=True,
)
plain = pa.table({"image": pa.array([picture(i) for i in range(24)], pa.binary())})
write("plain/x.parquet", plain, compression="none", use_dictionary=False)
pages = {"compression": "gzip", "data_page_size": 300, "write_batch_size": 4}
write("gzip/train-00000-of-00002.parquet", table(range(0, 14)), **pages)
write("gzip/train-00001-of-00002.parquet", table(range(14, 24)), data_page_version="2.0", **pages)
for compression in ["brotli", "lz4"]:
    write(f"{compression}/x.parquet", table(range(0, 1)), compression=compression)

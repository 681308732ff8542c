#![no_main]

fuzz::target!("parquet", trainer::formats::parquets, trainer::formats::read_images);

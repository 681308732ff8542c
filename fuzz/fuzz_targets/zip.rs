#![no_main]

fuzz::target!("zip", trainer::formats::zips, trainer::formats::read_images);

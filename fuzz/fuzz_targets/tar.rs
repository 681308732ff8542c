#![no_main]

fuzz::target!("tar", trainer::formats::tars, trainer::formats::read_images);

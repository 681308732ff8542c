#![no_main]

fuzz::target!("launch", trainer::formats::launches, trainer::formats::read_launch);

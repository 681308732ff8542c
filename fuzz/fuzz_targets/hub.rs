#![no_main]

fuzz::target!("hub", trainer::formats::hubs, trainer::formats::read_hub);

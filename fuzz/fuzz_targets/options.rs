#![no_main]

fuzz::target!("options", trainer::formats::options, trainer::formats::read_options);

#![no_main]

fuzz::target!("weights", fuzz::formats::weights, fuzz::formats::read_weights);

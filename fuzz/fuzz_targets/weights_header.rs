#![no_main]

fuzz::target!("weights_header", fuzz::formats::weights_headers, fuzz::formats::read_weights_header);

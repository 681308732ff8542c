#![no_main]

fuzz::target!("npz", fuzz::formats::arrays, fuzz::formats::read_arrays);

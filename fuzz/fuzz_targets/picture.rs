#![no_main]

fuzz::target!("picture", fuzz::formats::pictures, fuzz::formats::read_picture);

#![no_main]

fuzz::target!("link", fuzz::formats::links, fuzz::formats::read_link);

#![no_main]

fuzz::target!("classes", fuzz::formats::class_lists, fuzz::formats::read_class_list);

#![no_main]

fuzz::target!("plan", trainer::formats::plans, trainer::formats::read_plan);

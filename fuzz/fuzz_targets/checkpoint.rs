#![no_main]

fuzz::target!("checkpoint", trainer::formats::checkpoints, trainer::formats::read_checkpoint);

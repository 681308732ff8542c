#![no_main]

fuzz::target!("cifar", trainer::formats::cifar, trainer::formats::read_cifar);

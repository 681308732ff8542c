#![no_main]

fuzz::target!("latents", trainer::formats::latent_datasets, trainer::formats::read_latents);

//! What each control and picture is, in three layers: a line, a paragraph, and the equation with
//! its source.

/// Something that is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name in the page.
    pub id: &'static str,
    /// What it is.
    pub title: &'static str,
    /// The line.
    pub line: &'static str,
    /// The paragraph.
    pub more: &'static str,
    /// The equation.
    pub equation: &'static str,
    /// Where it is from.
    pub source: &'static str,
}

/// The noisy picture.
pub const NOISY: Topic = Topic {
    id: "noisy",
    title: "The noisy picture",
    line: "What the sampler has so far: at first nothing but noise, in the end the picture.",
    more: "Noise is added to a picture by drawing a random number for every value and scaling it \
           by the noise level σ. At σ = 80 nothing of a picture is left; at σ = 0 it is clean. \
           Sampling walks this road backwards. To be visible at every level, the picture is shown \
           divided by √(1 + σ²).",
    equation: "z_t = z_0 + σ_t ε,  ε ~ N(0, I)",
    source: "DiffiT, section 3 (arXiv 2312.02139)",
};

/// The denoised guess.
pub const GUESS: Topic = Topic {
    id: "guess",
    title: "The denoiser's guess",
    line: "What the model takes the clean picture to be, given the noisy one and its noise level.",
    more: "A denoiser has learned one thing: to guess the picture behind the noise. It was shown \
           pictures with noise added and corrected wherever its guess was off. Where there is \
           much noise, many pictures are possible and the best guess is their blurry mean; as the \
           noise falls, the guess becomes one picture. The network F is wrapped so that its input \
           and output keep an even size at every noise level.",
    equation: "D(x; σ) = c_skip(σ) x + c_out(σ) F(c_in(σ) x; c_noise(σ))",
    source: "EDM, eq 7 (arXiv 2206.00364), which DiffiT trains with",
};

/// Latents.
pub const LATENT: Topic = Topic {
    id: "latent-topic",
    title: "Latents",
    line: "A small map of numbers, of which an autoencoder makes the picture.",
    more: "A picture of 256 × 256 pixels is large for a transformer. An autoencoder has learned to write \
           it down in an eighth of its height and width, four numbers a place, and to read that back; \
           the model makes noise into such a map. Its channels are no colours: what is shown here are \
           the first three as if they were. To start from a picture, the autoencoder writes it down \
           first, and what you keep of it comes back a little changed.",
    equation: "picture = decoder(z / 0.18215),  z made by the sampler",
    source: "Latent diffusion (arXiv 2112.10752); DiffiT, section 3.2",
};

/// The curve.
pub const LEVELS: Topic = Topic {
    id: "levels",
    title: "Noise levels",
    line: "The levels that the sampler steps through, from much noise to none.",
    more: "The curve shows each step's noise level on a logarithmic scale. σ max is where it \
           starts, σ min the last level above zero; ρ says how much the steps crowd towards low \
           noise, where details are decided. 7 was found to work best for pictures. Even in \
           log-SNR, every step divides the noise by the same factor, as if ρ had no end; \
           DPM-Solver++ was made for such levels.",
    equation: "σ_i = (σ_max^(1/ρ) + i/(N-1) (σ_min^(1/ρ) - σ_max^(1/ρ)))^ρ,  σ_N = 0;  \
               log-SNR: σ_i = σ_max (σ_min / σ_max)^(i/(N-1))",
    source: "EDM, eq 5; DPM-Solver (arXiv 2206.00927), section 3",
};

/// The seed.
pub const SEED: Topic = Topic {
    id: "seed-topic",
    title: "Seed",
    line: "The noise to start from. The same seed makes the same picture, here and on the command line.",
    more: "The first noisy picture decides everything that follows when no noise is added on the \
           way. Its numbers come from a counter-based generator (Philox4x32-10), which gives the \
           same bits on every machine, so a seed is enough to share a picture.",
    equation: "x_0 = σ_max n,  n = Philox(seed)",
    source: "Salmon et al., SC 2011; EDM, algorithm 1, line 2",
};

/// Sampler and steps.
pub const SAMPLER: Topic = Topic {
    id: "sampler-topic",
    title: "Sampler and steps",
    line: "How it walks from one noise level to the next. More steps are more exact, and slower.",
    more: "The difference between the noisy picture and the guess, divided by the noise level, is \
           the slope of a path that leads to a picture. Euler follows the slope straight; Heun \
           looks at the slope at the end of the step too and takes the mean of both, which costs \
           a second evaluation and follows the bend far better. iPNDM remembers the last slopes \
           and DPM-Solver++ (DPM++) the last guesses, which tell the bend without a second \
           evaluation: they need the fewest, and Order says how many they look at. DDIM goes to the next \
           level with a part η of its noise fresh, DDPM with all of it, by the variance that the model \
           has learned, or by one of its bounds. The paper uses Heun with 18 steps \
           for pictures of 32 pixels: 35 evaluations.",
    equation: "dx/dσ = (x - D(x; σ)) / σ = d;  iPNDM, order 2: x + (σ_next - σ) (3 d - d_before) / 2;  \
               DPM++: dx/dλ = D - x,  λ = -ln σ",
    source: "EDM, eq 1 and 3, algorithm 1; DiffiT, eq 2 with β = 0; iPNDM: arXiv 2204.13902; \
             DPM-Solver++: arXiv 2211.01095, algorithm 2",
};

/// Churn.
pub const CHURN: Topic = Topic {
    id: "churn-topic",
    title: "Churn",
    line: "Fresh noise on the way: each step first adds a little and then removes more.",
    more: "Without it the way from noise to picture is a fixed road. With it, errors made earlier \
           are washed out by new noise, at the price of more steps. Zero, the paper's choice for \
           small pictures, makes the sampler deterministic.",
    equation: "σ' = σ (1 + min(S_churn / N, √2 - 1)),  x' = x + √(σ'² - σ²) S_noise n",
    source: "EDM, algorithm 2; DiffiT, eq 2 with β > 0",
};

/// Discrete time.
pub const RESPACING: Topic = Topic {
    id: "respacing-topic",
    title: "Discrete time",
    line: "Noise levels out of the 1000 steps with which ADM and its followers are trained.",
    more: "Such a model has learned noise levels as the steps of a process: each adds a little noise, \
           a β of it. Sampling takes fewer: 250 of them evenly, every twentieth (ddim50), or so many \
           out of each of equal parts (10,15,20). The paper takes 250 for its latent models; DDIM \
           comes close to them with 50.",
    equation: "ᾱ_t = Π (1 - β_s),  σ_t = √(1/ᾱ_t - 1),  β from 0.0001 to 0.02",
    source: "DDPM (arXiv 2006.11239), section 2; fewer steps: Improved DDPM (arXiv 2102.09672), section 4",
};

/// The class.
pub const CLASS: Topic = Topic {
    id: "class-topic",
    title: "Class",
    line: "What the picture is to be of, among the names that the model was trained with.",
    more: "Each class has a learned vector, which is added to the embedding of the noise level and so \
           reaches every query, key and value. The map from classes to vectors is linear, so that two of \
           them can be mixed. A name, a part of one that no other has, or a number will do; several, with \
           commas between them, go to the seeds in turn, and otter=0.6, pizza=0.4 is a mixture. Without a \
           class the vector is zero, or, in a latent model, the one that stands for any picture.",
    equation: "e += √classes W onehot(class)",
    source: "EDM's code for its class-conditional models (arXiv 2206.00364); latent: embedding(t) + embedding(class), after DiT (arXiv 2212.09748)",
};

/// Guidance.
pub const GUIDANCE: Topic = Topic {
    id: "guidance-topic",
    title: "Guidance",
    line: "How far beyond its own guess the model is pushed towards the class.",
    more: "The model guesses twice, with the class and without it, and the difference is made longer. \
           More gives clearer but more alike pictures; 1 is the model as it is, and takes half of the \
           time. DiffiT's release lets the scale rise from 1 as the noise falls (256 pixels: 4.4, power \
           4) or keeps it (512 pixels: 1.49), and guides the first three channels. Between noise \
           levels of your choice alone it costs less, and pictures stay more varied.",
    equation: "D = D_null + s (D_class - D_null),  s(t) = 1 + (w - 1) (1 - cos(π (1 - t/1000)^p)) / 2",
    source: "Ho and Salimans (arXiv 2207.12598); the course: DiffiT's release; interval: arXiv 2404.07724",
};

/// Attention.
pub const ATTENTION: Topic = Topic {
    id: "attention-topic",
    title: "Attention",
    line: "How much the marked token takes up of each other token in its window.",
    more: "A token is one place of a feature map. In every block each token asks a question (its \
           query), which is compared with what all tokens of its window offer (their keys); the \
           better they match, the more of their values it takes up. In DiffiT, queries, keys and \
           values all depend on the noise level, so what a token looks at can change while the \
           picture forms: move the slider and see.",
    equation: "Attention = softmax(Q Kᵀ / √d + B) V",
    source: "DiffiT, eq 6; the paper's figure 2 shows such maps",
};

/// The time token.
pub const TIME: Topic = Topic {
    id: "time-topic",
    title: "The time token",
    line: "How the blocks are told the noise level: it is a part of every query, key and value.",
    more: "The bars show how long the part from the time token is beside the part from the \
           picture. Silenced, the token is zero: the blocks do not know how much noise there is, \
           and what they draw shows why they should.",
    equation: "q = x_s W_qs + x_t W_qt,  k = x_s W_ks + x_t W_kt,  v = x_s W_vs + x_t W_vt",
    source: "DiffiT, eq 3-5",
};

/// The relative position bias.
pub const BIAS: Topic = Topic {
    id: "bias-topic",
    title: "Relative position bias",
    line: "What a token attends to by place alone, whatever the picture and the noise.",
    more: "Each head has learned a number for every offset between two tokens and adds it before \
           the softmax. It is the only thing that tells the block where tokens lie, and it does \
           not change with the noise level.",
    equation: "B = the bias in softmax(Q Kᵀ / √d + B)",
    source: "DiffiT, eq 6, after Swin Transformer (arXiv 2103.14030)",
};

/// Between two seeds.
pub const BETWEEN: Topic = Topic {
    id: "between-topic",
    title: "Between two seeds",
    line: "Nine pictures on the way from the noise of one seed to that of another.",
    more: "The way is an arc, since the mean of two noises is fainter than noise and would be \
           taken for a picture already partly clean. Pictures close to each other on the way are \
           alike until the model decides for something else.",
    equation: "n(t) = (sin((1-t)θ) n_a + sin(tθ) n_b) / sin θ,  cos θ = n_a · n_b / (|n_a| |n_b|)",
    source: "Shoemake, SIGGRAPH 1985; DDIM, section 5.3 (arXiv 2010.02502)",
};

/// Among four seeds.
pub const AMONG: Topic = Topic {
    id: "among-topic",
    title: "A plane between four seeds",
    line: "Sixteen pictures; those in the corners are the seeds' own.",
    more: "Each place mixes the noises of the four corners on arcs, first to the right, then \
           downwards. Look for borders where one thing turns into another.",
    equation: "n(u, v) = arc(arc(n_a, n_b, u), arc(n_c, n_d, u), v)",
    source: "as between two seeds",
};

/// From a picture.
pub const FROM: Topic = Topic {
    id: "from-topic",
    title: "Start from a picture",
    line: "Your picture with noise added, and made anew from there.",
    more: "The more noise, the less is left of your picture: a little makes it over in the manner \
           of what the model has learned; much leaves no more than its colours. The picture stays \
           on your machine, and in no link.",
    equation: "x_0 = picture + σ n, then the sampler from σ on",
    source: "SDEdit (arXiv 2108.01073)",
};

/// Inpainting.
pub const INPAINT: Topic = Topic {
    id: "inpaint-topic",
    title: "Make a part anew",
    line: "Paint over what the model is to invent; the rest stays.",
    more: "After every evaluation the guess is replaced by the known picture where that is to \
           stay. The model sees it on every step, and what it draws in the gap has to fit.",
    equation: "D' = m ⊙ picture + (1 - m) ⊙ D(x; σ)",
    source: "after DDNM (arXiv 2212.00490) and the ODE of EDM, eq 1",
};

/// Comparing.
pub const COMPARE: Topic = Topic {
    id: "compare-topic",
    title: "Compare two settings",
    line: "One seed, two ways from noise to picture, side by side.",
    more: "Both begin with the same noise. Try few steps against many, Euler against Heun, or the \
           time token silenced against heard.",
    equation: "x_0 the same; the steps differ",
    source: "EDM, figure 2, compares samplers in this way",
};

/// All of them.
pub const ALL: [Topic; 18] = [
    NOISY, GUESS, LATENT, LEVELS, SEED, CLASS, GUIDANCE, SAMPLER, RESPACING, CHURN, ATTENTION,
    TIME, BIAS, BETWEEN, AMONG, FROM, INPAINT, COMPARE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_its_three_layers() {
        for topic in ALL {
            assert!(topic.line.len() < 110, "{}: a line of {} letters", topic.id, topic.line.len());
            assert!(topic.more.len() > 2 * topic.line.len() - 60, "{}", topic.id);
            assert!(!topic.equation.is_empty() && !topic.source.is_empty());
            assert_eq!(ALL.iter().filter(|other| other.id == topic.id).count(), 1);
        }
    }
}

//! Explanations of controls and pictures: a line, a paragraph, and an equation with its source.

/// An explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// A unique name.
    pub id: &'static str,
    /// The title.
    pub title: &'static str,
    /// The line.
    pub line: &'static str,
    /// The paragraph.
    pub more: &'static str,
    /// The equation, as [`crate::equation`] reads it.
    pub equation: &'static str,
    /// The source of the equation.
    pub source: &'static str,
}

/// The noisy picture.
pub const NOISY: Topic = Topic {
    id: "noisy",
    title: "The noisy picture",
    line: "What the sampler has so far: pure noise at first, the picture at the end.",
    more: "Noise is added to a picture by drawing a random number for every value and scaling it \
           by the noise level σ. At σ = 80 nothing of the picture can be seen; at σ = 0 it is \
           clean. Sampling goes in the other direction. For display, the noisy picture is divided \
           by √(1 + σ²).",
    equation: "z_t = z_0 + σ_t ε,  ε ~ N(0, I)",
    source: "DiffiT, section 3 (arXiv 2312.02139)",
};

/// The denoised picture.
pub const GUESS: Topic = Topic {
    id: "guess",
    title: "The denoiser's guess",
    line: "What the model thinks is under the noise: its estimate of the clean picture.",
    more: "A denoiser is trained on pictures with noise added, to estimate the clean ones. At a \
           high noise level many pictures are possible, and the best estimate is their blurry \
           mean; as the noise level falls, the estimate becomes one picture. The network F is \
           preconditioned so that its input and its output have unit variance at every noise \
           level.",
    equation: "D(x; σ) = c_skip(σ) x + c_out(σ) F(c_in(σ) x; c_noise(σ))",
    source: "EDM, eq 7 (arXiv 2206.00364), which DiffiT trains with",
};

/// Latents.
pub const LATENT: Topic = Topic {
    id: "latent-topic",
    title: "Latents",
    line: "A small map of numbers, which an autoencoder decodes to the picture.",
    more: "A picture of 256 × 256 pixels is large for a transformer. An autoencoder encodes it at \
           an eighth of its height and width, with four numbers per place, and decodes it again; \
           the model makes such maps from noise. Their channels are not colours: the first three \
           are shown as if they were. To start from a picture, the autoencoder encodes it first, \
           so the parts that you keep change a little.",
    equation: "picture = decoder(z / 0.18215),  z` made by the sampler`",
    source: "Latent diffusion (arXiv 2112.10752); DiffiT, section 3.2",
};

/// Noise levels.
pub const LEVELS: Topic = Topic {
    id: "levels",
    title: "Noise levels",
    line: "How much noise is left at each step, from the highest level to zero.",
    more: "The curve shows the noise level of each step on a logarithmic scale. σ max is the \
           first level, σ min the last one above zero. A higher ρ places more steps at low noise \
           levels, where details form; 7 works best for pictures according to EDM. With levels \
           even in log-SNR, every step divides the noise level by the same factor, which is the \
           limit of high ρ; DPM-Solver++ was designed for such levels.",
    equation: "σ_i = (σ_max^(1/ρ) + i/(N-1) (σ_min^(1/ρ) - σ_max^(1/ρ)))^ρ,  σ_N = 0;  \
               `log-SNR: `σ_i = σ_max (σ_min / σ_max)^(i/(N-1))",
    source: "EDM, eq 5; DPM-Solver (arXiv 2206.00927), section 3",
};

/// The seed.
pub const SEED: Topic = Topic {
    id: "seed-topic",
    title: "Seed",
    line: "The number that decides the noise. The same seed gives the same picture, anywhere.",
    more: "Without churn or other fresh noise, the initial noise determines the picture. Its \
           values come from a counter-based generator (Philox4x32-10), which gives the same bits \
           on every machine, so a seed is enough to share a picture.",
    equation: "x_0 = σ_max n,  n = Philox(seed)",
    source: "Salmon et al., SC 2011; EDM, algorithm 1, line 2",
};

/// The sampler and the steps.
pub const SAMPLER: Topic = Topic {
    id: "sampler-topic",
    title: "Sampler and steps",
    line: "How the steps are taken. More steps are more accurate, and slower.",
    more: "The difference between the noisy picture and the estimate, divided by the noise level, \
           is the slope of a path that leads to a picture. Euler follows the slope in a straight \
           line. Heun averages it with the slope at the end of the step, which takes a second \
           evaluation and is far more accurate. iPNDM uses previous slopes and DPM-Solver++ \
           (DPM++) previous estimates instead, so they need the fewest evaluations; Order is how \
           many a step uses, with the current one. DDIM adds a share η of the noise of ancestral \
           sampling in every step. DDPM is ancestral sampling, with the variance that the model \
           has learned or with one of its bounds. The paper uses Heun with 18 steps, which are 35 \
           evaluations, for pictures of 32 pixels.",
    equation: "dx/dσ = (x - D(x; σ)) / σ = d;  `iPNDM, order 2: `x + (σ_next - σ) (3 d - d_before) / 2;  \
               `DPM++: `dx/dλ = D - x,  λ = -ln σ",
    source: "EDM, eq 1 and 3, algorithm 1; DiffiT, eq 2 with β = 0; iPNDM: arXiv 2204.13902; \
             DPM-Solver++: arXiv 2211.01095, algorithm 2",
};

/// Churn.
pub const CHURN: Topic = Topic {
    id: "churn-topic",
    title: "Churn",
    line: "Fresh noise during sampling: each step first adds some noise and then removes more.",
    more: "Without churn, sampling is deterministic. With it, fresh noise corrects the errors of \
           earlier steps, but more steps are needed. The paper uses none for small pictures.",
    equation: "σ' = σ (1 + min(S_churn / N, √2 - 1)),  x' = x + √(σ'² - σ²) S_noise n",
    source: "EDM, algorithm 2; DiffiT, eq 2 with β > 0",
};

/// Discrete time.
pub const RESPACING: Topic = Topic {
    id: "respacing-topic",
    title: "Discrete time",
    line: "Noise levels of a process with 1000 discrete steps, as in ADM.",
    more: "Such a model is trained on the steps of a process that adds noise of variance β in \
           each. Sampling uses fewer of them: 250 evenly spaced ones, every twentieth (ddim50), \
           or given numbers from sections of equal length (10,15,20). The paper uses 250 for its \
           latent models; 50 steps of DDIM give similar pictures.",
    equation: "ᾱ_t = Π (1 - β_s),  σ_t = √(1/ᾱ_t - 1),  β` from `0.0001` to `0.02",
    source: "DDPM (arXiv 2006.11239), section 2; fewer steps: Improved DDPM (arXiv 2102.09672), section 4",
};

/// The class.
pub const CLASS: Topic = Topic {
    id: "class-topic",
    title: "Class",
    line: "What the picture shows: a name from the model's training pictures.",
    more: "Each class has a learned vector that is added to the embedding of the noise level, and \
           so affects every query, key and value. The map from classes to vectors is linear, so \
           classes can be mixed. You can type a name, a part that only one name has, or a number; \
           several, separated by commas, are used for consecutive seeds; otter=0.6, pizza=0.4 is \
           a mixture. Without a class the vector is zero, or in a latent model the one for \
           pictures of any class.",
    equation: "e += √classes W onehot(class)",
    source: "EDM's code for its class-conditional models (arXiv 2206.00364); latent: embedding(t) + embedding(class), after DiT (arXiv 2212.09748)",
};

/// Guidance.
pub const GUIDANCE: Topic = Topic {
    id: "guidance-topic",
    title: "Guidance",
    line: "How strictly the picture follows its name.",
    more: "The model is evaluated twice, with the class and without it, and the difference is \
           scaled up. A higher scale gives clearer pictures with less variety; 1 means no \
           guidance, and takes half of the time. In DiffiT's release the scale rises from 1 as \
           the noise level falls (256 pixels: 4.4, power 4) or is constant (512 pixels: 1.49), \
           and the first three channels are guided. Guidance within an interval of noise levels \
           is faster and keeps more variety.",
    equation: "D = D_null + s (D_class - D_null),  s(t) = 1 + (w - 1) (1 - cos(π (1 - t/1000)^p)) / 2",
    source: "Ho and Salimans (arXiv 2207.12598); the schedule: DiffiT's release; interval: arXiv 2404.07724",
};

/// Attention.
pub const ATTENTION: Topic = Topic {
    id: "attention-topic",
    title: "Attention",
    line: "How much the marked patch, a token, takes from each other one in its window.",
    more: "A token is a place of a feature map. In every block, the query of each token is \
           compared with the keys of all tokens in its window; the better they match, the more of \
           their values is added to the token. In DiffiT, queries, keys and values all depend on \
           the noise level, so the attention changes during sampling: move the slider to see it.",
    equation: "Attention = softmax(Q Kᵀ / √d + B) V",
    source: "DiffiT, eq 6; the paper's figure 2 shows such maps",
};

/// The time token.
pub const TIME: Topic = Topic {
    id: "time-topic",
    title: "The time token",
    line: "How a block knows how much noise is left: it is a part of every query, key and value.",
    more: "The bars show the norm of the part from the time token relative to that of the part \
           from the picture. A silenced time token is zero: the blocks do not get the noise level \
           then, and the pictures show why they need it.",
    equation: "q = x_s W_qs + x_t W_qt,  k = x_s W_ks + x_t W_kt,  v = x_s W_vs + x_t W_vt",
    source: "DiffiT, eq 3-5",
};

/// The relative position bias.
pub const BIAS: Topic = Topic {
    id: "bias-topic",
    title: "Relative position bias",
    line: "What a patch prefers by position alone, whatever the picture shows.",
    more: "Each head has a learned number for every offset between two tokens, which is added \
           before the softmax. It is the only information on positions in the attention, \
           and does not depend on the picture or the noise level.",
    equation: "B =` the bias in `softmax(Q Kᵀ / √d + B)",
    source: "DiffiT, eq 6, after Swin Transformer (arXiv 2103.14030)",
};

/// Interpolation between two seeds.
pub const BETWEEN: Topic = Topic {
    id: "between-topic",
    title: "Between two seeds",
    line: "Nine pictures between the noise of one seed and that of another.",
    more: "The interpolation is spherical, since the mean of two noises has a lower variance and \
           would look like a partly denoised picture. Neighbouring pictures are similar, except \
           where the model switches to another subject.",
    equation: "n(t) = (sin((1-t)θ) n_a + sin(tθ) n_b) / sin θ,  cos θ = n_a · n_b / (|n_a| |n_b|)",
    source: "Shoemake, SIGGRAPH 1985; DDIM, section 5.3 (arXiv 2010.02502)",
};

/// Interpolation between four seeds.
pub const AMONG: Topic = Topic {
    id: "among-topic",
    title: "A plane between four seeds",
    line: "Sixteen pictures, with those of the four seeds in the corners.",
    more: "Each picture starts from a spherical interpolation of the noise in the four corners, \
           first horizontally, then vertically. The model switches between subjects along the \
           borders.",
    equation: "n(u, v) = arc(arc(n_a, n_b, u), arc(n_c, n_d, u), v)",
    source: "as between two seeds",
};

/// Sampling from a picture.
pub const FROM: Topic = Topic {
    id: "from-topic",
    title: "Start from a picture",
    line: "Noise is added to your picture, and sampling starts from there.",
    more: "The more noise, the less of your picture is left: a little changes its style to that \
           of the training pictures; with a lot, only the colours remain. The picture stays on \
           your machine and is not part of the link.",
    equation: "x_0 = picture + σ n,` then the sampler from `σ` on`",
    source: "SDEdit (arXiv 2108.01073)",
};

/// Inpainting.
pub const INPAINT: Topic = Topic {
    id: "inpaint-topic",
    title: "Replace a part",
    line: "Paint over the part that the model is to replace.",
    more: "After every evaluation, the known part of the picture replaces that part of the \
           estimate. So the model sees it in every step, and what it paints matches the rest.",
    equation: "D' = m ⊙ picture + (1 - m) ⊙ D(x; σ)",
    source: "after DDNM (arXiv 2212.00490) and the ODE of EDM, eq 1",
};

/// Comparison.
pub const COMPARE: Topic = Topic {
    id: "compare-topic",
    title: "Compare two settings",
    line: "One seed with two settings, side by side.",
    more: "Both start from the same noise. Try few steps and many, Euler and Heun, or the time \
           token on and off.",
    equation: "x_0` the same; the steps differ`",
    source: "EDM, figure 2, compares samplers in this way",
};

/// All topics.
pub const ALL: [Topic; 18] = [
    NOISY, GUESS, LATENT, LEVELS, SEED, CLASS, GUIDANCE, SAMPLER, RESPACING, CHURN, ATTENTION,
    TIME, BIAS, BETWEEN, AMONG, FROM, INPAINT, COMPARE,
];

/// Splits a source into texts, each with the address of the paper if it is the number of one.
pub fn linked(source: &str) -> Vec<(&str, Option<String>)> {
    const MARK: &str = "arXiv ";
    let mut parts = Vec::new();
    let mut rest = source;
    while let Some(start) = rest.find(MARK) {
        let number = &rest[start + MARK.len()..];
        let end = number.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(number.len());
        let number = number[..end].trim_end_matches('.');
        let (before, link) = (&rest[..start], &rest[start..start + MARK.len() + number.len()]);
        if !before.is_empty() {
            parts.push((before, None));
        }
        parts.push((link, Some(format!("https://arxiv.org/abs/{number}"))));
        rest = &rest[start + link.len()..];
    }
    if !rest.is_empty() {
        parts.push((rest, None));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn papers_have_links() {
        let found = linked("EDM, eq 7 (arXiv 2206.00364), after arXiv 2010.02502.");
        let want = [
            ("EDM, eq 7 (", None),
            ("arXiv 2206.00364", Some("https://arxiv.org/abs/2206.00364".to_string())),
            ("), after ", None),
            ("arXiv 2010.02502", Some("https://arxiv.org/abs/2010.02502".to_string())),
            (".", None),
        ];
        assert_eq!(found, want);
        assert_eq!(linked("Shoemake"), [("Shoemake", None)]);
        for topic in ALL {
            let whole: String = linked(topic.source).iter().map(|(text, _)| *text).collect();
            assert_eq!(whole, topic.source);
            for (_, address) in linked(topic.source) {
                let number = address.map(|a| a.rsplit('/').next().expect("a number").to_string());
                assert!(number.is_none_or(|n| n.len() == 10 && n.contains('.')), "{}", topic.id);
            }
        }
    }

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

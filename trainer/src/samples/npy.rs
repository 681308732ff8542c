//! Arrays in NumPy's file format, version 1.0.

/// Returns the header of an array: everything before its values, which are in C order. `kind` is the
/// type as NumPy writes it, such as `|u1` or `<i8`.
///
/// The header is a Python dictionary as text, padded so that the values start at a multiple of 64.
pub fn header(kind: &str, shape: &[usize]) -> Vec<u8> {
    let shape = match shape {
        [size] => format!("({size},)"),
        sizes => {
            let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
            format!("({})", sizes.join(", "))
        }
    };
    let mut text =
        format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}").into_bytes();
    // Magic, version, length of the text, and a line break at its end.
    let before = 6 + 2 + 2;
    text.resize((before + text.len() + 1).next_multiple_of(64) - before - 1, b' ');
    text.push(b'\n');
    let length = u16::try_from(text.len()).expect("shapes have few dimensions");
    [&b"\x93NUMPY\x01\x00"[..], &length.to_le_bytes(), &text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compared with files of NumPy 2.
    #[test]
    fn the_header_has_the_layout_of_numpy() {
        for (shape, text) in [
            (&[50_000, 32, 32, 3][..], "'shape': (50000, 32, 32, 3), }"),
            (&[7], "'shape': (7,), }"),
        ] {
            let header = header("|u1", shape);
            assert!(header.starts_with(b"\x93NUMPY\x01\x00") && header.ends_with(b"\n"));
            assert_eq!(header.len() % 64, 0);
            let length = u16::from_le_bytes([header[8], header[9]]) as usize;
            assert_eq!(header.len(), 10 + length);
            let dictionary = String::from_utf8_lossy(&header[10..]);
            assert!(dictionary.starts_with("{'descr': '|u1', 'fortran_order': False, "));
            assert!(dictionary.trim_end().ends_with(text), "{dictionary}");
        }
    }
}

//! Splits output into replies, to see that it is well-formed.

/// How many whole replies stand in `output`.
///
/// # Errors
/// Where the output stops making sense.
pub(crate) fn count(output: &[u8]) -> Result<usize, usize> {
    let (mut at, mut count) = (0, 0);
    while at < output.len() {
        at = skip(output, at).ok_or(at)?;
        count += 1;
    }
    Ok(count)
}

/// Where the reply that begins at `at` ends.
fn skip(output: &[u8], at: usize) -> Option<usize> {
    let end = at + output[at..].windows(2).position(|pair| pair == b"\r\n")?;
    let text = std::str::from_utf8(&output[at + 1..end]);
    let next = end + 2;
    match output[at] {
        b'+' | b'-' => Some(next),
        b':' => text.ok()?.parse::<i64>().ok().map(|_| next),
        b'_' => (end == at + 1).then_some(next),
        b'#' => matches!(text.ok()?, "t" | "f").then_some(next),
        b',' => text.ok()?.parse::<f64>().ok().map(|_| next),
        b'$' | b'=' => {
            let len = text.ok()?.parse::<i64>().ok()?;
            if len == -1 {
                return Some(next);
            }
            let end = next.checked_add(usize::try_from(len).ok()?)?;
            (output.get(end..end + 2)? == b"\r\n").then_some(end + 2)
        }
        kind @ (b'*' | b'%') => {
            let len = text.ok()?.parse::<usize>().ok()?;
            let values = if kind == b'%' { len * 2 } else { len };
            (0..values)
                .try_fold(next, |at, _| if at < output.len() { skip(output, at) } else { None })
        }
        _ => None,
    }
}

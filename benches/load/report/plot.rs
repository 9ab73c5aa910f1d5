/// placeholder
pub(crate) fn render() {}

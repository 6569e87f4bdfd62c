//! Analytics stage: folding order events into deltas, windows, watermark.

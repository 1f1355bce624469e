"""Do mixes chosen by the perplexity gap keep a fine-tuned model aligned? The experiment."""

"""Down the ranking: what is asked for, the candidates, the rules that leave some out."""

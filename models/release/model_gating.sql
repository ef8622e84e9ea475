-- a frozen configuration cannot go back to an earlier fold: the last checkpoint is judged
{{ gate(ref('gating_history'), ref('gating_thresholds'), judged='final') }}

"""From counts to what is shown: measures, tables and figures. No torch, no network."""

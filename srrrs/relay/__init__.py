"""The relay: public listeners, tokens, reservations and the tunnels of agents."""

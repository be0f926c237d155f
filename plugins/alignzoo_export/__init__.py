"""`alignzoo export`: the result of a run as files that other programs load, proved on its items.

command     the command
items       held-out prompts of the run, with answers and log-probs of its own model
write       the files: a merged model, or an adapter on the base
plain       an export as plain transformers and peft see it
llama       GGUF: converted, quantised and run by llama.cpp
proof       the comparison of an export with what it was made from
ollama      the Modelfile
card        the model card
hub         the upload
"""

"""Three cells for single examples in NumPy, with real or complex numbers."""

import numpy as np

import jaxrnn as rnn
from tests.support.sequence_loop import Oracle


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(p, s, x):
    z = x @ p.input_kernel + p.bias + s.hidden @ p.recurrent_kernel
    i, f, g, o = np.split(z, 4)
    c = sigmoid(f) * s.cell + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return rnn.LSTMState(h, c), h


def gru(p, s, x):
    i_r, i_z, i_n = np.split(x @ p.input_kernel + p.bias, 3)
    h_r, h_z, h_n = np.split(s.hidden @ p.recurrent_kernel, 3)
    z = sigmoid(i_z + h_z)
    n = np.tanh(i_n + sigmoid(i_r + h_r) * (h_n + p.candidate_bias))
    h = (1 - z) * n + z * s.hidden
    return rnn.GRUState(h), h


def elman(p, s, x):
    h = np.tanh(x @ p.input_kernel + p.bias + s.hidden @ p.recurrent_kernel)
    return rnn.ElmanState(h), h


def zeros(p):
    return np.zeros(p.recurrent_kernel.shape[0])


LSTM = Oracle(lstm, lambda p: rnn.LSTMState(zeros(p), zeros(p)))
GRU = Oracle(gru, lambda p: rnn.GRUState(zeros(p)))
ELMAN = Oracle(elman, lambda p: rnn.ElmanState(zeros(p)))

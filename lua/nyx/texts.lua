-- Help texts of layers, optimisers, data and training, by the name that follows "nyx.":
-- {group, text}. A text begins with how the thing is called. Read next: help.lua.

local M = {}

local function add(group, texts)
  for name, text in pairs(texts) do M[group:sub(5) .. "." .. name] = { group, text } end
end

add("nyx.nn", {
  Module = "nyx.class(\"Name\", nn.Module): the base of layers and models, which assign " ..
    "modules and parameters to fields of self in init and define forward(x). Methods: " ..
    "parameters named_parameters buffers modules named_modules children apply train eval " ..
    "zero_grad to requires_grad_ state_dict load_state_dict register_buffer " ..
    "register_parameter parameter_count register_forward_pre_hook register_forward_hook " ..
    "register_full_backward_pre_hook register_full_backward_hook",
  Parameter = "nn.Parameter(tensor): a trainable leaf that shares memory with tensor",
  register = "nn.register(class): lets nyx.load build modules of a class of your own",
  QuantizedLinear = "nn.QuantizedLinear(in_features, out_features, {bias, bits, group, " ..
    "symmetric, dtype, activation}): x W^T + b with a weight of 4 (or 8) bits, for inference; " ..
    "QuantizedLinear.from_linear(linear, options) makes one of a trained layer",
  Linear = "nn.Linear(in_features, out_features, {bias, dtype, activation}): x W^T + b over the " ..
    "last dimension, then the elementwise op that activation names; layer(x, residual) adds " ..
    "residual after it",
  Embedding = "nn.Embedding(num_embeddings, embedding_dim, {padding_idx, dtype}): the rows of " ..
    "a table, for labels from 1; the row padding_idx stays zero",
  Conv2d = "nn.Conv2d(in_channels, out_channels, kernel_size, {stride, padding, dilation, " ..
    "groups, bias, dtype}): convolution of (batch, channels, height, width); sizes are " ..
    "numbers or {height, width}",
  MaxPool2d = "nn.MaxPool2d(kernel_size, {stride, padding, dilation, ceil_mode}): the " ..
    "greatest of each window; the stride is the window's size unless given",
  AvgPool2d = "nn.AvgPool2d(kernel_size, {stride, padding, ceil_mode, count_include_pad}): " ..
    "the mean of each window",
  BatchNorm1d = "nn.BatchNorm1d(num_features, {eps, momentum, affine, track_running_stats, " ..
    "dtype}): batch normalisation of (batch, channels) and (batch, channels, length)",
  BatchNorm2d = "nn.BatchNorm2d(num_features, {eps, momentum, affine, track_running_stats, " ..
    "dtype}): batch normalisation of (batch, channels, height, width)",
  LayerNorm = "nn.LayerNorm(normalized_shape, {eps, elementwise_affine, bias, dtype}): " ..
    "normalises over the trailing dimensions",
  RMSNorm = "nn.RMSNorm(normalized_shape, {eps, elementwise_affine, dtype}): divides by the " ..
    "root mean square over the trailing dimensions",
  GroupNorm = "nn.GroupNorm(num_groups, num_channels, {eps, affine, dtype}): normalises groups " ..
    "of channels of each sample of (batch, channels, ...); as many groups as channels: " ..
    "instance norm",
  MultiheadAttention = "nn.MultiheadAttention(embed_dim, num_heads, {dropout, bias, kdim, vdim, " ..
    "batch_first, num_kv_heads, rotary, dtype}): attention of several heads between " ..
    "projections; called with (query, key, value, {key_padding_mask, attn_mask, is_causal, " ..
    "need_weights, average_attn_weights, cache}), of shape (batch, length, features); true in a " ..
    "mask hides a key; num_kv_heads: fewer heads of keys, shared by groups; rotary: an " ..
    "nn.RotaryEmbedding; cache: an nn.KVCache, behind whose positions the new ones go",
  SwiGLU = "nn.SwiGLU(dim, hidden, {out_features, bias, dtype}): out_proj(up * silu(gate)), " ..
    "both from one product: the first half of in_proj.weight's rows gives up, the second half gate",
  GEGLU = "nn.GEGLU(dim, hidden, {out_features, bias, dtype}): nn.SwiGLU with gelu",
  RotaryEmbedding = "nn.RotaryEmbedding(dim, {base, interleaved, scaling}): turns pairs of the " ..
    "first dim features of x (.., length, features) by angles that grow with the position; " ..
    "called with (x, {offset, positions}). scaling: {type = \"linear\", factor = 8} or {type = " ..
    "\"llama3\", factor, low_freq_factor, high_freq_factor, original_max_position}",
  KVCache = "nn.KVCache(batch, heads, max_length, features, {dtype, value_features, grow}): " ..
    "keys and values of the positions so far, in memory that is made once; keys, values = " ..
    "cache:append(keys, values) gives views of all that are filled, cache.length how many; " ..
    "cache:truncate(length) forgets the later ones. Full, it is an error, or it grows",
  LSTM = "nn.LSTM(input_size, hidden_size, {num_layers, bias, batch_first, dropout, " ..
    "bidirectional, proj_size, dtype}): long short-term memory; y, h, c = lstm(x, h0, c0). x is " ..
    "(length, batch, features), with batch_first (batch, length, features), or (length, " ..
    "features), or what nn.utils.rnn.pack_padded_sequence gives; y are " ..
    "the last layer's states, h and c the last ones of every layer and direction, (num_layers * " ..
    "directions, batch, hidden_size), as are h0 and c0, zero when left out; dropout: between " ..
    "layers, in training; proj_size: features of the states, which a further weight makes of " ..
    "hidden_size. Parameters have PyTorch's names and order of gates",
  GRU = "nn.GRU(input_size, hidden_size, {num_layers, bias, batch_first, dropout, " ..
    "bidirectional, dtype}): gated recurrent units, as nn.LSTM without cells: y, h = gru(x, h0)",
  RNN = "nn.RNN(input_size, hidden_size, {nonlinearity, num_layers, bias, batch_first, dropout, " ..
    "bidirectional, dtype}): a simple recurrent net with nonlinearity \"tanh\" or \"relu\", as " ..
    "nn.LSTM without cells: y, h = rnn(x, h0)",
  LSTMCell = "nn.LSTMCell(input_size, hidden_size, {bias, dtype}): one step of nn.LSTM; h, c = " ..
    "cell(x, h, c) of (batch, features), or without a batch",
  GRUCell = "nn.GRUCell(input_size, hidden_size, {bias, dtype}): one step of nn.GRU; h = " ..
    "cell(x, h)",
  RNNCell = "nn.RNNCell(input_size, hidden_size, {nonlinearity, bias, dtype}): one step of " ..
    "nn.RNN; h = cell(x, h)",
  Dropout = "nn.Dropout(p): in training, zeroes elements with probability p (0.5) and scales " ..
    "the others by 1 / (1 - p)",
  Sequential = "nn.Sequential(module, ...): modules one after the other; net[1] is the first, " ..
    "net:append(module) adds one",
  ModuleList = "nn.ModuleList({module, ...}): a list of modules without a forward of its own",
  Identity = "nn.Identity(): gives its input back",
  Flatten = "nn.Flatten(start_dim, end_dim): joins the dimensions from start_dim (2) to " ..
    "end_dim (the last)",
})

-- Activations apply the op of the same name.
for name, how in pairs { ReLU = "relu", ReLU6 = "relu6", LeakyReLU = "leaky_relu(negative_slope)",
  ELU = "elu(alpha)", SELU = "selu", SiLU = "silu", Mish = "mish",
  Softplus = "softplus(beta, threshold)", Sigmoid = "sigmoid", Tanh = "tanh",
  Hardtanh = "hardtanh(min_val, max_val)", Hardswish = "hardswish", Softmax = "softmax(dim)",
  LogSoftmax = "log_softmax(dim)", GELU = "gelu(approximate)" } do
  local op, arguments = how:match("^([%w_]+)(.*)$")
  if arguments == "" then arguments = "()" end
  M["nn." .. name] = { "nyx.nn", ("nn.%s%s: the op %s as a layer"):format(name, arguments, op) }
end
M["nn.Softmax"][2] = M["nn.Softmax"][2] .. "; dim is the last unless given"
M["nn.LogSoftmax"][2] = M["nn.LogSoftmax"][2] .. "; dim is the last unless given"
M["nn.GELU"][2] = M["nn.GELU"][2] .. "; gelu_tanh when approximate is \"tanh\""

add("nyx.nn", {
  CrossEntropyLoss = "nn.CrossEntropyLoss({weight, ignore_index, label_smoothing, " ..
    "reduction}): criterion(logits, target) of logits (batch, classes, ...) and labels from " ..
    "1, or class probabilities. The reduction of this and other losses is \"mean\", \"sum\" " ..
    "or \"none\"",
  NLLLoss = "nn.NLLLoss({weight, ignore_index, reduction}): log-probabilities against labels " ..
    "from 1",
  MSELoss = "nn.MSELoss({reduction}): (input - target)^2",
  L1Loss = "nn.L1Loss({reduction}): |input - target|",
  HuberLoss = "nn.HuberLoss({delta, reduction}): quadratic within delta (1), linear beyond",
  SmoothL1Loss = "nn.SmoothL1Loss({beta, reduction}): the Huber loss divided by beta (1)",
  BCELoss = "nn.BCELoss({weight, reduction}): probabilities against targets, both in 0..1, " ..
    "which is not checked: others give nan or losses below 0",
  BCEWithLogitsLoss = "nn.BCEWithLogitsLoss({weight, pos_weight, reduction}): logits against " ..
    "targets in 0..1",
  KLDivLoss = "nn.KLDivLoss({log_target, reduction}): log-probabilities against " ..
    "probabilities; reduction may also be \"batchmean\"",
})

add("nyx.nn", {
  checkpoint_sequential = "nn.checkpoint_sequential(seq, x, {segments, budget, plan}): seq(x) " ..
    "as checkpoints, in so many segments, or in those that recompute least with so many bytes",
  plan_checkpoints = "nn.plan_checkpoints(layers, budget): the segments {segments, peak, " ..
    "recomputed} that recompute the fewest layers within a budget of bytes",
  measure_layers = "nn.measure_layers(seq, x): the bytes {kept, output} that each layer keeps " ..
    "for its gradient, and of its output",
})

add("nyx.nn.init", {
  uniform_ = "nn.init.uniform_(tensor, low, high): uniform over low..high (0..1)",
  normal_ = "nn.init.normal_(tensor, mean, std): normal (0, 1)",
  constant_ = "nn.init.constant_(tensor, value): the same number everywhere",
  zeros_ = "nn.init.zeros_(tensor): zeros",
  ones_ = "nn.init.ones_(tensor): ones",
  kaiming_uniform_ = "nn.init.kaiming_uniform_(tensor, {a, mode, nonlinearity}): He et al. " ..
    "2015",
  kaiming_normal_ = "nn.init.kaiming_normal_(tensor, {a, mode, nonlinearity}): He et al. 2015",
  xavier_uniform_ = "nn.init.xavier_uniform_(tensor, gain): Glorot and Bengio 2010",
  xavier_normal_ = "nn.init.xavier_normal_(tensor, gain): Glorot and Bengio 2010",
  fans = "nn.init.fans(tensor): the inputs and the outputs that one weight of a layer touches",
  calculate_gain = "nn.init.calculate_gain(nonlinearity, parameter): the factor by which a " ..
    "nonlinearity shrinks a signal",
})

add("nyx.nn.utils.rnn", {
  pack_padded_sequence = "nn.utils.rnn.pack_padded_sequence(x, lengths, {batch_first, " ..
    "enforce_sorted}): sequences of different lengths out of (steps, batch, ...), for nn.LSTM, " ..
    "nn.GRU and nn.RNN, whose first result is packed as well; enforce_sorted (true): the " ..
    "longest must come first, else they are sorted",
  pad_packed_sequence = "nn.utils.rnn.pad_packed_sequence(packed, {batch_first, padding_value, " ..
    "total_length}): back to (steps, batch, ...), and the lengths",
  PackedSequence = "nn.utils.rnn.PackedSequence(data, batch_sizes, sorted_indices, " ..
    "unsorted_indices): what pack_padded_sequence gives: all first steps, then all second ones",
})

add("nyx.nn.utils", {
  clip_grad_norm_ = "nn.utils.clip_grad_norm_(parameters, max_norm, norm_type, " ..
    "{error_if_nonfinite}): scales all gradients together so that their norm (2) is at most " ..
    "max_norm; gives the norm before",
  get_total_norm = "nn.utils.get_total_norm(tensors, norm_type): the norm (2) of all tensors " ..
    "together",
  normalize_grad_ = "nn.utils.normalize_grad_(parameters, {norm_type, eps}): divides all " ..
    "gradients together by their norm (2); gives the norm before",
  centralize_grad_ = "nn.utils.centralize_grad_(parameters): subtracts from each gradient with " ..
    "more than one dimension its mean over all but the first (Yong et al. 2020)",
  add_grad_noise_ = "nn.utils.add_grad_noise_(parameters, {step, eta, gamma}): adds normal " ..
    "noise of variance eta / (1 + step)^gamma, 0.01 and 0.55 (Neelakantan et al. 2015); gives " ..
    "the deviation",
  pcgrad = "nn.utils.pcgrad(losses, parameters, {retain_graph, shuffle}): adds to .grad the sum " ..
    "of the losses' gradients, each without what opposes the others (Yu et al. 2020); gives " ..
    "which did",
  clip_grad_value_ = "nn.utils.clip_grad_value_(parameters, value): clamps gradients to " ..
    "-value..value",
  parameters_to_vector = "nn.utils.parameters_to_vector(parameters): all elements as one vector",
  vector_to_parameters = "nn.utils.vector_to_parameters(vector, parameters): writes a vector " ..
    "back into parameters",
})

add("nyx.optim", {
  SGD = "optim.SGD(params, {lr, momentum, dampening, weight_decay, nesterov, maximize}): " ..
    "gradient descent, lr 1e-3. Methods of all optimisers: zero_grad step add_param_group " ..
    "state_dict load_state_dict. params is a list of tensors or of groups {params = ..., lr = " ..
    "...}. All take max_grad_norm too: each step limits the norm of all gradients together, as " ..
    "nn.utils.clip_grad_norm_ would, without changing them, and leaves it in .grad_norm",
  RMSprop = "optim.RMSprop(params, {lr, alpha, eps, weight_decay, momentum, centered, " ..
    "maximize}): scaled by a running root mean square, lr 1e-2",
  Adam = "optim.Adam(params, {lr, betas, eps, weight_decay, amsgrad, maximize}): Kingma and " ..
    "Ba 2015, lr 1e-3",
  AdamW = "optim.AdamW(params, {lr, betas, eps, weight_decay, amsgrad, maximize}): Adam with " ..
    "weight decay (0.01) that shrinks the parameters themselves",
  Optimizer = "nyx.class(\"Name\", optim.Optimizer): the base of optimisers, which define " ..
    "update(group, parameter, grad, state)",
  Schedule = "nyx.class(\"Name\", optim.Schedule): the base of schedules, which define " ..
    "rate(base, epoch); step() goes on to the next epoch",
  StepLR = "optim.StepLR(optimizer, {step_size, gamma}): multiplies the rate by gamma (0.1) " ..
    "every step_size epochs",
  ExponentialLR = "optim.ExponentialLR(optimizer, {gamma}): multiplies the rate by gamma " ..
    "every epoch",
  CosineAnnealingLR = "optim.CosineAnnealingLR(optimizer, {T_max, eta_min}): half a cosine " ..
    "from the starting rate to eta_min (0) in T_max epochs",
})

add("nyx.amp", {
  GradScaler = "amp.GradScaler({init_scale, growth_factor, backoff_factor, growth_interval, " ..
    "enabled}): scales the loss for float16 and finds the scale: scaler:scale(loss):backward() " ..
    "scaler:step(optimizer) scaler:update(). Methods: scale unscale_ step update get_scale " ..
    "is_enabled state_dict load_state_dict",
})

add("nyx.graph", {
  dot = "graph.dot(y, {names, saved}): the graph under a tensor, or a list of them, as text " ..
    "for Graphviz. names: a table from names to tensors, or a module; saved: tell how much " ..
    "memory every op holds",
  save = "graph.save(y, path, {names, saved, program}): writes the graph as text (.dot, .gv) " ..
    "or, with Graphviz, draws it (.svg, .png, .pdf); true, or nil and a message",
})

add("nyx.func", {
  grad = "func.grad(f, {argnums, has_aux}): the function that gives the gradient of f, which " ..
    "returns a tensor with one element, by its first argument, by argument argnums (-1: the " ..
    "last) or a list of them; arguments may be tables of tensors. With has_aux, f's further " ..
    "results come behind it",
  value_and_grad = "func.value_and_grad(f, {argnums, has_aux}): the function that gives f's " ..
    "value and its gradient",
  vjp = "func.vjp(f, ...): f's result, and a function of v that gives v^T J by each argument; " ..
    "then f's further results",
  jvp = "func.jvp(f, primals, tangents): f's result at the arguments in a list, and its " ..
    "derivative along tangents (false: zero), in forward mode; then f's further results",
  linearize = "func.linearize(f, ...): f's result, and a function of tangents that gives the " ..
    "derivative along them",
  vmap = "func.vmap(f, {in_dims, out_dims, chunk_size, randomness}): f, written for one entry, " ..
    "over a batch. in_dims and out_dims: the dimension (1) of the entries, false for what is " ..
    "the same for all, or a list of these; chunk_size: entries at a time; randomness: whether " ..
    "random ops, dropout too, are an \"error\" (unless told otherwise), draw \"different\" " ..
    "numbers for each entry, or the \"same\" for all",
  jacobian = "func.jacobian(f, {argnums, mode, has_aux, chunk_size}): the function that gives " ..
    "f's Jacobian, (result's shape, argument's shape), in the cheaper mode or \"reverse\" or " ..
    "\"forward\"",
  jacrev = "func.jacrev(f, {argnums, has_aux, chunk_size}): the Jacobian in reverse mode",
  jacfwd = "func.jacfwd(f, {argnums, has_aux, chunk_size}): the Jacobian in forward mode",
  hessian = "func.hessian(f, {argnums, chunk_size}): the function that gives the matrix of f's " ..
    "second derivatives",
  hvp = "func.hvp(f, primals, tangents): f's value and the product of its Hessian with the " ..
    "tangents, without the matrix (Pearlmutter 1994)",
  functional_call = "func.functional_call(module, parameters, ...): module(...) with the " ..
    "tensors of a table from names to tensors in place of its own",
  stack_module_state = "func.stack_module_state(models): the parameters and the buffers of " ..
    "models of one kind, stacked by name, to vmap a functional_call over",
})

add("nyx.linalg", {
  solve = "nyx.linalg.solve(a, b, {left}): x with a x = b, by LU, for matrices a (..., n, n) " ..
    "and b (..., n, k), or vectors (..., n); left = false: x a = b. An error where a matrix is " ..
    "singular. Leading dimensions broadcast",
  inv = "nyx.linalg.inv(a): the inverses of matrices (..., n, n); an error where one is " ..
    "singular. To multiply by an inverse, linalg.solve is faster and more exact",
  solve_triangular = "nyx.linalg.solve_triangular(a, b, upper, {left, unitriangular, " ..
    "check}): the op solve_triangular",
  cholesky = "nyx.linalg.cholesky(a, {upper}): the op cholesky",
  lu_factor = "nyx.linalg.lu_factor(a): the op lu_factor, two results",
  qr = "nyx.linalg.qr(a, {mode}): the op qr, two results",
  lu = "nyx.linalg.lu(a): p, l, u with a = p l u: a permutation, lower triangles with ones on " ..
    "their diagonals, upper ones",
  lu_solve = "nyx.linalg.lu_solve(lu, pivots, b, {left, adjoint}): x with a x = b from what " ..
    "lu_factor(a) gave; adjoint = true: a^T x = b, left = false: x a = b",
  lstsq = "nyx.linalg.lstsq(a, b): x of least |a x - b| for matrices a (..., m, n) of full " ..
    "rank and b (..., m, k), or vectors (..., m), by QR; where m < n the shortest of all " ..
    "solutions. Then the sums of squares of a x - b, empty unless m > n. An error where a " ..
    "triangle of QR has a zero on its diagonal",
  det = "nyx.linalg.det(a): the determinants (...) of matrices (..., n, n). The first gradient " ..
    "is right for singular matrices too; further ones need regular matrices",
  slogdet = "nyx.linalg.slogdet(a): the signs of determinants, 0 of singular matrices, and " ..
    "the logarithms of their magnitudes",
  matrix_power = "nyx.linalg.matrix_power(a, n): the product of n matrices a; of the inverse " ..
    "where n < 0, ones on the diagonal where n = 0",
})

add("nyx.fft", {
  fft = "fft.fft(x, {n, dim, norm}): the discrete Fourier transform along dim (-1), complex: " ..
    "the sums over j of x[j] e^(-2 pi i j k / n), j and k from 0. x is cut to n elements or " ..
    "filled up with zeros; norm: \"backward\" (no factor), \"forward\" (1/n) or \"ortho\" " ..
    "(1/sqrt(n))",
  ifft = "fft.ifft(x, {n, dim, norm}): the inverse of fft; \"backward\" divides by n",
  rfft = "fft.rfft(x, {n, dim, norm}): the first n/2 + 1 results of fft of real numbers; the " ..
    "others are their conjugates",
  irfft = "fft.irfft(x, {n, dim, norm}): the inverse of rfft: n real numbers, 2 (size - 1) when " ..
    "left out",
  hfft = "fft.hfft(x, {n, dim, norm}): the transform, real, of numbers that are " ..
    "conjugate-symmetric around 0, of which x is the first half",
  ihfft = "fft.ihfft(x, {n, dim, norm}): the inverse of hfft",
  fft2 = "fft.fft2(x, {s, dim, norm}): fft along the last two dimensions",
  ifft2 = "fft.ifft2(x, {s, dim, norm}): the inverse of fft2",
  rfft2 = "fft.rfft2(x, {s, dim, norm}): rfft along the last dimension, fft along the one before",
  irfft2 = "fft.irfft2(x, {s, dim, norm}): the inverse of rfft2",
  fftn = "fft.fftn(x, {s, dim, norm}): fft along the dimensions in dim, or as many last ones as " ..
    "s has sizes, or all",
  ifftn = "fft.ifftn(x, {s, dim, norm}): the inverse of fftn",
  rfftn = "fft.rfftn(x, {s, dim, norm}): rfft along the last of the dimensions, fft along the " ..
    "others",
  irfftn = "fft.irfftn(x, {s, dim, norm}): the inverse of rfftn",
  fftfreq = "fft.fftfreq(n, d, {dtype, device}): the frequencies of fft's results, in cycles " ..
    "per unit of the step d (1): 0, 1, ..., then the negative ones, over n d",
  rfftfreq = "fft.rfftfreq(n, d, {dtype, device}): those of rfft's results",
  fftshift = "fft.fftshift(x, dims): x with the frequency 0 in the middle of the dimensions (all)",
  ifftshift = "fft.ifftshift(x, dims): the opposite of fftshift",
})

add("nyx.data", {
  TensorDataset = "data.TensorDataset(tensor, ...): rows of tensors with equal first " ..
    "dimensions; size() and get(positions)",
  Subset = "data.Subset(dataset, positions): some rows of a dataset",
  split = "data.split(dataset, sizes, {shuffle}): subsets at random, of counts or of " ..
    "fractions that add up to 1",
  DataLoader = "data.DataLoader(dataset, {batch_size, shuffle, drop_last}): for x, y in " ..
    "loader do; every loop is an epoch",
  csv = "data.csv(path, {header, sep, dtype, skip}): a tensor (rows, columns) from a CSV " ..
    "file, or with dtype = \"string\" rows of strings; then the names of the header. nil and " ..
    "a message when it cannot be read",
  idx = "data.idx(path): a tensor from an IDX file such as MNIST's; nil and a message when it " ..
    "cannot be read",
})

add("nyx.train", {
  progress = "train.progress(source, {label, total, file, terminal}): a bar around a loop, " ..
    "for x, y in bar do; bar:set(\"loss\", value) shows a value. The source is a loader, a " ..
    "number or an iterator",
  accuracy = "train.accuracy(predicted, target): the share of right labels, or of scores " ..
    "whose greatest is right",
  confusion = "train.confusion(predicted, target, classes): how often class i (row) was " ..
    "predicted as class j (column)",
  confusion_text = "train.confusion_text(matrix, names): a confusion matrix as text",
})

add("nyx.show", {
  image = "show.image(image, {low, high, colour}): a grey image (height, width) as text",
  images = "show.images({{image, caption}, ...}, {low, high, colour}): images side by side, " ..
    "as text",
})

return M

-- Statistics by PyTorch's names: order statistics, spread, histograms, what ignores nan. What
-- they are made of are ops: sort, cumargmax (core/op/scan.c), bin_counts (histogram.c), runs
-- (consecutive.c).
-- Read next: compose.lua.
local nyx = require "nyx"
local check = require "nyx.check"
local docs = require("nyx.tensor").docs

local Tensor = nyx.Tensor

-- ---------------------------------------------------------------- rows

-- x with dimension dim last; all elements as one row where dim is nil. Not empty along it.
local function rows_of(where, x, dim)
  check.tensor(where, "x", x)
  local rows = x
  if dim == nil or x.ndim == 0 then
    rows = x.ndim == 1 and x or x:reshape(-1)
  elseif check.dim(where, x, dim) < x.ndim then
    rows = x:movedim(dim, -1)
  end
  if rows:size(-1) == 0 then
    check.fail("%s: %s has no elements%s", where, check.describe(x),
      dim and (" along dimension %.0f"):format(dim) or "")
  end
  return rows
end

-- Rows of one result each, as x reduced along dim.
local function reduced(y, x, dim, keepdim)
  if dim ~= nil and x.ndim > 0 then return keepdim and y:movedim(-1, dim) or y:squeeze(-1) end
  if not keepdim then return y:squeeze(-1) end
  local ones = {}
  for d = 1, x.ndim do ones[d] = 1 end
  return y:reshape(ones)
end

-- How many nan each row has, and nil for integers, which have none.
local function count_nan(rows)
  return rows:is_floating_point() and rows:isnan():sum(-1, true) or nil
end

local function floats(where, x)
  check.tensor(where, "x", x)
  if not x:is_floating_point() then
    check.fail("%s: 'x' has dtype %s, expected floats; convert it with x:float()", where, x.dtype)
  end
end

-- ---------------------------------------------------------------- the middle

-- The lower middle of each row and its position. With `ignore` of what is not nan, else the
-- first nan where there is one.
local function middle(where, x, dim, keepdim, ignore)
  local values, positions = rows_of(where, x, dim):order_statistic(0, -1, ignore)
  values = reduced(values, x, dim, keepdim)
  if dim == nil then return values end
  return values, reduced(positions, x, dim, keepdim)
end

docs.median = { "reduction", "x:median(dim, keepdim): the middle value (the lower of two) and " ..
  "its position along dim; without dim of all elements, the value alone. nan if any is" }
--- The middle value, the lower of two, and where it is; without `dim` the value alone.
---@param dim? integer
---@param keepdim? boolean
---@return nyx.Tensor values
---@return nyx.Tensor? positions
function Tensor:median(dim, keepdim) return middle("median", self, dim, keepdim, false) end

docs.nanmedian = { "reduction", "x:nanmedian(dim, keepdim): median of what is not nan" }
--- The median of what is not nan; nan where nothing else is.
---@param dim? integer
---@param keepdim? boolean
---@return nyx.Tensor values
---@return nyx.Tensor? positions
function Tensor:nanmedian(dim, keepdim) return middle("nanmedian", self, dim, keepdim, true) end

-- ---------------------------------------------------------------- quantiles

-- The q as a vector of x's dtype, and whether it was one number.
local function quantiles(where, x, q)
  local single = type(q) == "number"
  if single then
    check.number(where, "q", q, 0, 1)
    q = nyx.tensor({ q }, { dtype = x.dtype, device = x.device })
  else
    q = check.tensor(where, "q", q):detach():to(x.dtype)
    single = q.ndim == 0
    if q.ndim > 1 then
      check.fail("%s: 'q' is %s, expected a number or a vector", where, check.describe(q))
    end
    q = q:reshape(-1)
    if q:numel() > 0 and not q:ge(0):logical_and(q:le(1)):all():item() then
      check.fail("%s: 'q' has elements outside 0..1", where)
    end
  end
  return q, single
end

local function quantile(where, x, q, dim, keepdim, interpolation, ignore)
  floats(where, x)
  interpolation = check.choice(where, "interpolation", interpolation or "linear",
    "linear lower higher midpoint nearest")
  local rows = rows_of(where, x, dim)
  local single
  q, single = quantiles(where, x, q)
  local n, nans = rows:size(-1), count_nan(rows)
  local sorted = rows:sort(-1) -- nan last
  local last = (ignore and nyx.sub(n - 1, nans):clamp { min = 0 } or nyx.full_like(nans, n - 1))
  local rank = q * last:to(x.dtype) -- from 0
  if not ignore then rank = nyx.where(nans:gt(0), last:to(x.dtype), rank) end
  local function at(position) return sorted:gather(position:to("int64") + 1, -1) end
  local y
  if interpolation == "lower" then
    y = at(rank:floor())
  elseif interpolation == "higher" then
    y = at(rank:ceil())
  elseif interpolation == "nearest" then
    y = at(rank:round())
  else
    local low = rank:floor()
    local weight = interpolation == "midpoint" and nyx.full_like(rank, 0.5) or rank - low
    y = at(low):lerp(at(rank:ceil()), weight)
  end
  if single then return reduced(y, x, dim, keepdim) end
  y = y:movedim(-1, 1)
  if not keepdim then return y end
  if dim ~= nil and x.ndim > 0 then return y:unsqueeze(dim > 0 and dim + 1 or dim) end
  local shape = { q:numel() }
  for d = 1, x.ndim do shape[d + 1] = 1 end
  return y:reshape(shape)
end

docs.quantile = { "reduction", "x:quantile(q, dim, keepdim, interpolation): the value that a " ..
  "part q (0..1) of the elements along dim, or of all, lies below; q a number or a vector, " ..
  "whose results come first. Between two elements: \"linear\" (default), \"lower\", " ..
  "\"higher\", \"midpoint\" or \"nearest\". nan if any is" }
--- The value that a part `q` of the elements lies below; nan where there is one.
---@param q number|nyx.Tensor 0 to 1; the results of a vector come along dimension 1
---@param dim? integer all elements when left out
---@param keepdim? boolean
---@param interpolation? string "linear", "lower", "higher", "midpoint" or "nearest"
---@return nyx.Tensor
function Tensor:quantile(q, dim, keepdim, interpolation)
  return quantile("quantile", self, q, dim, keepdim, interpolation, false)
end

docs.nanquantile = { "reduction", "x:nanquantile(q, dim, keepdim, interpolation): quantile of " ..
  "what is not nan" }
--- The quantile of what is not nan; nan where nothing else is.
---@param q number|nyx.Tensor 0 to 1
---@param dim? integer
---@param keepdim? boolean
---@param interpolation? string
---@return nyx.Tensor
function Tensor:nanquantile(q, dim, keepdim, interpolation)
  return quantile("nanquantile", self, q, dim, keepdim, interpolation, true)
end

-- ---------------------------------------------------------------- elements by rank and number

docs.kthvalue = { "sorting", "x:kthvalue(k, dim, keepdim): the k-th smallest element along dim " ..
  "(the last) and its position; nan counts as larger than every number" }
--- The k-th smallest element along a dimension, and where it is.
---@param k integer from 1
---@param dim? integer default -1
---@param keepdim? boolean
---@return nyx.Tensor values
---@return nyx.Tensor positions
function Tensor:kthvalue(k, dim, keepdim)
  dim = dim or -1
  local rows = rows_of("kthvalue", self, dim)
  local n = rows:size(-1)
  if check.integer("kthvalue", "k", k) > n then
    check.fail("kthvalue: 'k' is %d, dimension %d of %s has %d elements", k, dim,
      check.describe(self), n)
  end
  local values, positions = rows:order_statistic(k, -1)
  return reduced(values, self, dim, keepdim), reduced(positions, self, dim, keepdim)
end

docs.mode = { "reduction", "x:mode(dim, keepdim): the most frequent value along dim (the last), " ..
  "the least of equally frequent ones, and its last position" }
--- The most frequent value, the least of equally frequent ones, and where it is last.
---@param dim? integer default -1
---@param keepdim? boolean
---@return nyx.Tensor values
---@return nyx.Tensor positions
function Tensor:mode(dim, keepdim)
  dim = dim or -1
  local rows = rows_of("mode", self, dim)
  local n = rows:size(-1)
  local values, positions = rows:sort(-1, false, true)
  local differs = values:narrow(-1, math.min(2, n), n - 1):ne(values:narrow(-1, 1, n - 1))
  -- Where the run of equal elements began that an element is in: the last beginning so far.
  local began = nyx.cat({ nyx.ones_like(values:narrow(-1, 1, 1), { dtype = "bool" }), differs }, -1)
    :cumargmax(-1)
  local length = nyx.arange(1, n + 1, { dtype = "int64" }) - began
  local at = length:argmax(-1, true)
  return reduced(values:gather(at, -1), self, dim, keepdim),
    reduced(positions:gather(at, -1), self, dim, keepdim)
end

for name, what in pairs { cummax = "greatest", cummin = "least" } do
  docs[name] = { "reduction", ("x:%s(dim): the %s element so far along dim, and its position, " ..
    "of equal ones the last; nan from the first nan on"):format(name, what) }
  -- The extreme element so far along `dim`, and where it is.
  Tensor[name] = function(self, dim)
    check.tensor(name, "x", self)
    if self.ndim > 0 then check.dim(name, self, dim) end
    local positions = self:cumargmax(dim, name == "cummax")
    return self:gather(positions, dim), positions
  end
end

docs.aminmax = { "reduction", "x:aminmax(dim, keepdim): amin and amax" }
--- The least and the greatest value.
---@param dim? integer|integer[]
---@param keepdim? boolean
---@return nyx.Tensor least
---@return nyx.Tensor greatest
function Tensor:aminmax(dim, keepdim)
  check.tensor("aminmax", "x", self)
  return self:amin(dim, keepdim), self:amax(dim, keepdim)
end

docs.unique_consecutive = { "sorting", "x:unique_consecutive(dim): x, or its slices along dim, " ..
  "without those that equal the one before; the position of each element among them; and how " ..
  "often each stood there. NaNs are equal here" }
--- The elements that differ from the one before; where each element is among them; how often
--- each stood there.
---@param dim? integer all elements as one row when left out
---@return nyx.Tensor values
---@return nyx.Tensor inverse int64
---@return nyx.Tensor counts int64
function Tensor:unique_consecutive(dim)
  check.tensor("unique_consecutive", "x", self)
  local x = self
  local flat = dim == nil or x.ndim == 0
  if flat then
    x, dim = x:reshape(-1), 1
  else
    dim = check.dim("unique_consecutive", self, dim)
  end
  if flat and x.device == "cpu" then
    local values, inverse, counts = x:runs()
    if x.requires_grad then values = x:index_select(counts:cumsum(1) - counts + 1, 1) end
    return values, inverse:reshape(self.shape), counts
  end
  local n = x:size(dim)
  if n == 0 then
    return x, nyx.zeros(flat and self.shape or { 0 }, { dtype = "int64" }),
      nyx.zeros(0, { dtype = "int64" })
  end
  local slices = x:movedim(dim, 1):reshape(n, x:numel() / n)
  local later, earlier = slices:narrow(1, math.min(2, n), n - 1), slices:narrow(1, 1, n - 1)
  local differs = later:ne(earlier)
  if x:is_floating_point() then
    differs = differs:logical_and(later:isnan():logical_and(earlier:isnan()):logical_not())
  end
  local first = nyx.cat { nyx.ones({ 1 }, { dtype = "bool" }), differs:any(2) }
  local at = first:nonzero():reshape(-1)
  local inverse = first:cumsum(1)
  if flat then inverse = inverse:reshape(self.shape) end
  local ends = nyx.cat { at, nyx.full({ 1 }, n + 1, { dtype = "int64" }) }
  return x:index_select(at, dim), inverse, ends:diff()
end

-- ---------------------------------------------------------------- sums, means, spread

docs.nanmean = { "reduction", "x:nanmean(dim, keepdim): the mean of what is not nan" }
--- The mean of what is not nan; nan where nothing else is.
---@param dim? integer|integer[]
---@param keepdim? boolean
---@return nyx.Tensor
function Tensor:nanmean(dim, keepdim)
  floats("nanmean", self)
  local numbers = self:eq(self):sum(dim, keepdim) -- nan equals nothing
  return self:nansum(dim, keepdim) / numbers:to(self.dtype)
end

for name, what in pairs { var_mean = "var", std_mean = "std" } do
  docs[name] = { "reduction", ("x:%s(dim, correction, keepdim): %s and mean"):format(name, what) }
  -- The spread and the mean.
  Tensor[name] = function(self, dim, correction, keepdim)
    check.tensor(name, "x", self)
    return self[what](self, dim, correction, keepdim), self:mean(dim, keepdim)
  end
end

-- A vector of n weights, or nil.
local function weights_of(where, name, w, n)
  if w == nil then return nil end
  check.tensor(where, name, w)
  if w.ndim ~= 1 or w:size(1) ~= n then
    check.fail("%s: '%s' is %s, expected a vector of %d, one for each observation", where, name,
      check.describe(w), n)
  end
  return w
end

docs.cov = { "reduction", "x:cov({correction, fweights, aweights}): the covariances of " ..
  "variables, rows of x, over observations, its columns; a vector is one variable. correction " ..
  "(1) is taken from the number of observations; fweights: how often each was observed, " ..
  "aweights: what each weighs" }
--- The covariances of the rows of a matrix.
---@param options? {correction: number, fweights: nyx.Tensor, aweights: nyx.Tensor}
---@return nyx.Tensor
function Tensor:cov(options)
  check.tensor("cov", "x", self)
  options = check.options("cov", options, "correction fweights aweights")
  local correction = check.number("cov", "correction", options.correction or 1)
  if self.ndim > 2 then
    check.fail("cov: 'x' is %s, expected at most 2 dimensions (variables, observations)",
      check.describe(self))
  end
  local x = self:reshape(self.ndim == 2 and self:size(1) or 1, -1)
  if not x:is_floating_point() then x = x:to(nyx.get_default_dtype()) end
  local n = x:size(2)
  local f = weights_of("cov", "fweights", options.fweights, n)
  local a = weights_of("cov", "aweights", options.aweights, n)
  local w = f and a and f * a or f or a
  local total = w and w:sum():to(x.dtype) or n
  local centred = x - (w and (x * w):sum(2, true) / total or x:mean(2, true))
  local spare = total - correction
  if a and correction ~= 0 then spare = total - (w * a):sum() * correction / total end
  spare = nyx.is_tensor(spare) and spare:clamp { min = 0 } or math.max(spare, 0)
  local c = centred:matmul((w and centred * w or centred):t()) / spare
  return self.ndim == 2 and self:size(1) ~= 1 and c or c:squeeze()
end

docs.corrcoef = { "reduction", "x:corrcoef(): the correlations of variables, rows of x, over " ..
  "observations, its columns" }
--- The correlations of the rows of a matrix.
---@return nyx.Tensor
function Tensor:corrcoef()
  check.tensor("corrcoef", "x", self)
  if self.ndim > 2 then
    check.fail("corrcoef: 'x' is %s, expected at most 2 dimensions (variables, observations)",
      check.describe(self))
  end
  local c = self:cov()
  if c.ndim == 0 then return c / c end
  local spread = c:diagonal():sqrt()
  return (c / spread:unsqueeze(2) / spread):clamp { min = -1, max = 1 }
end

docs.renorm = { "reduction", "x:renorm(p, dim, maxnorm): x with each slice at a position of dim " ..
  "scaled down to a p-norm of at most maxnorm" }
--- x with each slice at a position of `dim` scaled down to a p-norm of at most `maxnorm`.
---@param p number
---@param dim integer
---@param maxnorm number
---@return nyx.Tensor
function Tensor:renorm(p, dim, maxnorm)
  floats("renorm", self)
  p, dim = check.number("renorm", "p", p, 0), check.dim("renorm", self, dim)
  maxnorm = check.number("renorm", "maxnorm", maxnorm, 0)
  if self.ndim < 2 then
    check.fail("renorm: 'x' is %s, expected at least 2 dimensions", check.describe(self))
  end
  local others = {}
  for d = 1, self.ndim do
    if d ~= dim then others[#others + 1] = d end
  end
  local norm = self:norm(p, others, true)
  return self * nyx.where(norm:gt(maxnorm), maxnorm / (norm + 1e-7), 1)
end

-- ---------------------------------------------------------------- histograms

docs.bucketize = { "sorting", "x:bucketize(boundaries, right): for each element the position of " ..
  "the first of the ascending boundaries that is not below it, one more than there are when all " ..
  "are; right: the first that is above it" }
--- For each element the position of the first boundary that is not below it.
---@param boundaries nyx.Tensor ascending, a vector
---@param right? boolean the first boundary above it
---@return nyx.Tensor int64
function Tensor:bucketize(boundaries, right)
  check.tensor("bucketize", "x", self)
  check.tensor("bucketize", "boundaries", boundaries)
  if boundaries.ndim ~= 1 then
    check.fail("bucketize: 'boundaries' is %s, expected a vector", check.describe(boundaries))
  end
  return boundaries:searchsorted(self, right or false)
end

-- The least and the greatest value of a histogram: as given, else those of x, with a margin
-- where these are equal.
local function limits(where, x, low, high, margin)
  if low == high and x:numel() > 0 then
    low, high = x:amin():item(), x:amax():item()
  end
  if low > high or low ~= low or high ~= high or high - low == math.huge then
    check.fail("%s: the range is %g to %g, expected finite numbers in order", where, low, high)
  end
  if low == high then low, high = low - margin, high + margin end
  return low, high
end

docs.histc = { "reduction", "x:histc(bins, min, max): how many elements lie in each of `bins` " ..
  "(100) parts of equal width of min to max, those of x where both are equal (0); others do " ..
  "not count" }
--- How many elements lie in each part of a range; in x's dtype.
---@param bins? integer default 100
---@param min? number default 0
---@param max? number default 0; where both are equal they are those of x
---@return nyx.Tensor
function Tensor:histc(bins, min, max)
  floats("histc", self)
  bins = check.integer("histc", "bins", bins or 100)
  local x = self:detach():reshape(-1)
  local low, high = limits("histc", x, check.number("histc", "min", min or 0),
    check.number("histc", "max", max or 0), 1)
  if self.device == "cpu" then
    return nyx.bin_counts(x, { bins = bins, min = low, max = high }):to(self.dtype)
  end
  x = x:masked_select(x:ge(low):logical_and(x:le(high)))
  local bin = ((x - low) / (high - low) * bins):to("int64"):clamp { max = bins - 1 } + 1
  return bin:bincount(bins):to(self.dtype)
end

-- How many elements of x, or what weights, lie between edges, with ops that devices have.
local function counted(x, edges, weight)
  local n = edges:size(1) - 1
  local inside = x:ge(edges[1]):logical_and(x:le(edges[-1]))
  x = x:masked_select(inside)
  local bin = edges:searchsorted(x, true):clamp { max = n + 1 } - 1 -- the last edge: the last bin
  if not weight then return bin:bincount(n):to(x.dtype) end
  return nyx.zeros({ n }, { dtype = x.dtype }):scatter_add(bin, weight:masked_select(inside), 1)
end

docs.histogram = { "reduction", "x:histogram(bins, {range, weight, density}): how many elements " ..
  "lie in each bin, and the edges of the bins: `bins` of equal width over range, {least, " ..
  "greatest}, of x when left out; or bins is a tensor of ascending edges. The last bin has its " ..
  "upper edge too. weight, shaped like x: what each element counts; density: divided by their " ..
  "sum and the width" }
--- How many elements lie in each bin, and the edges of the bins.
---@param bins integer|nyx.Tensor a number of bins of equal width, or ascending edges
---@param options? {range: number[], weight: nyx.Tensor, density: boolean}
---@return nyx.Tensor counts in x's dtype
---@return nyx.Tensor edges
function Tensor:histogram(bins, options)
  floats("histogram", self)
  options = check.options("histogram", options, "range weight density")
  local x, weight = self:detach():reshape(-1), options.weight
  local edges, even = bins, not nyx.is_tensor(bins)
  if nyx.is_tensor(bins) then
    if bins.ndim ~= 1 or bins:size(1) < 2 then
      check.fail("histogram: 'bins' is %s, expected a number or a vector of at least 2 edges",
        check.describe(bins))
    end
  else
    local range = options.range and check.type("histogram", "range", options.range, "table") or {}
    local low, high = limits("histogram", x, check.number("histogram", "range[1]", range[1] or 0),
      check.number("histogram", "range[2]", range[2] or 0), 0.5)
    edges = nyx.linspace(low, high, check.integer("histogram", "bins", bins) + 1,
      { dtype = self.dtype })
  end
  if weight ~= nil then
    if not self:is_same_size(check.tensor("histogram", "weight", weight)) then
      check.fail("histogram: 'weight' is %s, expected the shape of x, (%s)",
        check.describe(weight), table.concat(self.shape, "x"))
    end
    weight = weight:detach():reshape(-1):to(self.dtype)
  end
  local counts
  if self.device == "cpu" then
    counts = nyx.bin_counts(x, edges:detach(), weight, { even = even }):to(self.dtype)
  else
    counts = counted(x, edges, weight)
  end
  if options.density then counts = counts / (edges:diff() * counts:sum()) end
  return counts, edges
end

for _, name in ipairs { "median", "nanmedian", "quantile", "nanquantile", "kthvalue", "mode",
  "cummax", "cummin", "aminmax", "unique_consecutive", "nanmean", "var_mean", "std_mean",
  "cov", "corrcoef", "renorm", "bucketize", "histc", "histogram" } do
  nyx[name] = Tensor[name]
end

return {}

-- nyx --bench as a user types it: what it starts, what it prints, what it refuses. That the
-- results of the cases are right is checked where they are timed, in spec/bench/run.py.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local run = require("program").run

local python = select(3, run "python3 -c 'import sys'") == 0

describe("nyx --bench", function()
  it("is in the help", function()
    assert.matches("--bench [case ...]", (run "$NYX --help"), 1, true)
  end)

  it("lists cases by name, beginning and group, through Python", function()
    if not python then return pending "no python3" end
    local out, err, code = run "cd / && $NYX --bench --list add_16 sgemm_1024 optim"
    assert.are.equal(0, code, err)
    for _, name in ipairs { "add_16 ", "add_16_out ", "sgemm_1024_tn ", "adamw_10m " } do
      assert.matches(name, out, 1, true)
    end
    assert.is_nil(out:find("sgemm_512", 1, true))
    assert.are.equal("", err)
  end)

  it("times cases and writes JSON", function()
    if not python then return pending "no python3" end
    local file = os.tmpname()
    local out, err, code = run("$NYX --bench --quick --no-peers --threads 1 --json " .. file
      .. " add_16 sgemm_64")
    assert.are.equal(0, code, err)
    assert.matches("\nadd_16 +[%d.]+ [nu]s ", out)
    assert.matches("\nsgemm_64 +[%d.]+ [num]s ", out)
    local text = run("cat " .. file)
    os.remove(file)
    for _, field in ipairs { '"cpu": ', '"threads": 1', '"limits": {', '"sgemm_64": {' } do
      assert.matches(field, text, 1, true)
    end
  end)

  it("shows the rows of an earlier run", function()
    if not python then return pending "no python3" end
    local file = os.tmpname()
    local handle = assert(io.open(file, "w"))
    handle:write [[{"cpu": "Intel", "cases": {
      "exp_1m": {"ratio": 0.25},
      "add_1m": {"ratio": 0.5}, "mul_1m": {"ratio": 2}, "relu_1m": {"ratio": 1},
      "gemv_4096": {"ratio": 0.8, "limit": 0.9}, "gemv_4096_t": {"ratio": 0.2, "limit": 0.42},
      "sgemm_8": {"nyx": 1e-6}}}]]
    handle:close()
    local out, err, code = run("$NYX --bench --table " .. file)
    os.remove(file)
    assert.are.equal(0, code, err)
    assert.are.equal([[
| row | ratio | wanted | of the limit, least | missed |
|---|---|---|---|---|
| add, mul, relu, 1M | 1 | 1 |  | `mul_1m` 2.00 |
| exp, 1M | 0.25 | 0.25 |  |  |
| matrix-vector 4096 | 0.4 | 0.9 | 42 % of 85 | `gemv_4096_t` 42 % |

Geometric mean of the rows, without those apart: 0.464, 0.5 wanted.
]], out)
    out, err, code = run("$NYX --bench --table " .. file)
    assert.are.equal(1, code)
    assert.matches(file .. " is not the results of a run (nyx --bench --json FILE)", out .. err,
      1, true)
  end)

  it("counts instructions, twice as many for twice the work", function()
    if not python then return pending "no python3" end
    if select(3, run "valgrind --version") ~= 0 then return pending "no valgrind" end
    local out, err, code = run "python3 spec/bench/run.py --nyx $NYX --instructions add_16"
    assert.are.equal(0, code, err)
    local count = tonumber((out:match("\nadd_16 +([%d,]+)\n"):gsub(",", "")))
    assert.is_true(count > 1000 and count < 100000, out)
    assert.matches("%d+%%  nyx_apply", out)
    out, err, code = run([[python3 -c '
import sys
sys.path.insert(0, "spec/bench")
import instructions
none, once, twice = (instructions.profile(sys.argv[1], "sgemm_64", n)[0] for n in (100, 200, 300))
print((twice - none) / (once - none))' $NYX]])
    assert.are.equal(0, code, err)
    assert.is_near(2, tonumber(out), 0.1)
  end)

  it("fails for a case that does not exist", function()
    local out, err, code = run "$NYX --bench nothing"
    assert.are.equal(1, code)
    assert.matches("no case is called nothing", out .. err, 1, true)
  end)

  it("times Nyx alone without Python", function()
    local out, err, code = run "PATH=/nowhere $NYX --bench add_16"
    assert.are.equal(0, code, err)
    assert.matches("^times alone, no limits and no peers: there is no python3\n", out)
    assert.matches("\nadd_16_recording +[%d.]+ [nu]s\n", out)
    err, code = select(2, run "PATH=/nowhere $NYX --bench --quick")
    assert.are.equal(1, code)
    assert.matches("unknown option --quick; cases only", err, 1, true)
  end)

  it("has cases whose names and groups are clear", function()
    local out, err, code = run("$NYX -", [[
      require "nyx.bench"
      local list = require "nyx.bench.case".list
      for _, case in ipairs(list) do
        assert(case.name:find "^[a-z][a-z0-9_]*$", case.name)
        assert(case.make or case.missing, case.name)
        assert(case.group ~= "", case.name)
      end
      print(#list > 200)
    ]])
    assert.are.equal(0, code, err)
    assert.are.equal("true\n", out)
  end)
end)

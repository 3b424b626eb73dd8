-- nyx --tune and NYX_TUNE as a user types them.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local run = require("program").run

describe("nyx --tune", function()
  local cache
  before_each(function()
    cache = os.tmpname()
    os.remove(cache)
  end)
  after_each(function() os.execute("rm -rf " .. cache) end)

  it("is in the help", function()
    assert.matches("--tune [case ...]", (run "$NYX --help"), 1, true)
  end)

  it("measures cases and keeps them where the next process finds them", function()
    local with = "XDG_CACHE_HOME=" .. cache .. " "
    local out, err, code = run(with .. "NYX_TUNE= $NYX --tune sgemm_64 sgemm_128")
    assert.are.equal(0, code, err)
    assert.matches("2 sizes measured, another way than the fixed rule's for %d; 2 known", out)
    assert.matches("kept in " .. cache .. "/nyx/tune%-%x+%.txt\n", out)
    assert.matches("tuning +100%%  2/2", err)
    out = run(with .. "NYX_TUNE= $NYX --doctor")
    assert.matches("\ntuning +as measured before; 2 sizes known, in " .. cache, out)
    out = run(with .. "NYX_TUNE=0 $NYX --doctor")
    assert.matches("\ntuning +off, fixed rules, NYX_TUNE=0; 0 sizes known\n", out)
    out = run(with .. "NYX_TUNE= $NYX --tune sgemm_64")
    assert.matches("0 sizes measured, .* for 0; 2 known in all\n", out)
  end)

  it("says which file is not followed, once, where one was wanted", function()
    local script = [[ -e "local nyx = require 'nyx' nyx.ones(64, 64):matmul(nyx.ones(64, 64))" ]]
    run("mkdir " .. cache .. " && echo nonsense > " .. cache .. "/file")
    local out, err, code = run("NYX_TUNE=" .. cache .. "/file $NYX" .. script)
    assert.are.equal("", out)
    assert.are.equal(0, code)
    assert.matches("tuning file " .. cache .. "/file: it is no tuning file of Nyx", err, 1, true)
    assert.are.equal("nonsense\n", (run("cat " .. cache .. "/file")))
    err = select(2, run("NYX_TUNE=" .. cache .. "/file $NYX -e 'local _ = 1'"))
    assert.are.equal("", err)
    run("NYX_TUNE=" .. cache .. "/new $NYX" .. script)
    assert.matches("\nproduct .*\nend 1\n$", (run("cat " .. cache .. "/new")))
  end)

  it("refuses what is no case", function()
    local out, err, code = run("XDG_CACHE_HOME=" .. cache .. " $NYX --tune nothing")
    assert.are.equal(1, code)
    assert.matches("no case is called nothing", out .. err, 1, true)
    err, code = select(2, run "$NYX --tune --fast")
    assert.are.equal(1, code)
    assert.matches("unknown option --fast", err, 1, true)
  end)
end)

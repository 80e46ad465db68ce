// A Node.js program that asks a server for many things at a time, round after round.
// node churn.js URL REQUESTS-A-ROUND MILLISECONDS-BETWEEN-ROUNDS; the advice, where there is one, is in $SNIPPET.
'use strict'
const http = require('http')
const [url, batch, pause] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])]
const told = { done: 0, failed: 0, errors: {} }

let options = { agent: false } // an agent of its own for each request, as `new Agent()` in a handler is
if (process.env.SNIPPET) {
  // Pasted as given; it has made one request by then, as the snippet does.
  const paste = new Function('http', 'url', 'onResponse', process.env.SNIPPET + '\nreturn agent')
  options = { agent: paste(http, url, (response) => response.resume()) }
}

function one() {
  return new Promise((resolve) => {
    const request = http.get(url, options, (response) => {
      response.resume()
      response.on('end', () => { told.done++; resolve() })
    })
    request.on('error', (error) => {
      told.failed++
      told.errors[error.code] = (told.errors[error.code] || 0) + 1
      resolve()
    })
  })
}

async function rounds() {
  for (;;) {
    await Promise.all(Array.from({ length: batch }, one))
    console.log(JSON.stringify(told))
    // After the round: what it has done with is closed by then, however slow the machine.
    await new Promise((resolve) => setTimeout(resolve, pause))
  }
}
rounds()

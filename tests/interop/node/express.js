'use strict'

// An Express application: POST /<action> does one thing to the session.

const express = require('express')
const session = require('express-session')

const actions = require('./actions')
const options = require('./options')

const main = async () => {
  const app = express()
  app.use(session(await options()))
  app.use(express.json())
  app.post('/:action', async (request, response) => {
    response.json({ result: await actions[request.params.action](request) })
  })
  app.listen(Number(process.env.PORT), '127.0.0.1')
}

main()

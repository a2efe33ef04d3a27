'use strict'

// The Express application with Passport, which copies what is in a session under a new id when
// somebody logs in or out.

const express = require('express')
const passport = require('passport')
const { Strategy } = require('passport-local')
const session = require('express-session')

const actions = require('./actions')
const options = require('./options')

passport.use(new Strategy((username, password, done) => done(null, { name: username })))
passport.serializeUser((user, done) => done(null, user.name))
passport.deserializeUser((name, done) => done(null, { name }))

const keepSessionInfo = true

const main = async () => {
  const app = express()
  app.use(session(await options()))
  app.use(express.json())
  app.use(passport.session())
  app.post('/enter', passport.authenticate('local', { keepSessionInfo }), (request, response) => {
    response.json({ result: request.user.name })
  })
  app.post('/leave', (request, response, next) => {
    request.logout({ keepSessionInfo }, (error) => (error ? next(error) : response.json({ result: null })))
  })
  app.post('/user', (request, response) => {
    response.json({ result: request.user ? request.user.name : null })
  })
  app.post('/:action', async (request, response) => {
    response.json({ result: await actions[request.params.action](request) })
  })
  app.listen(Number(process.env.PORT), '127.0.0.1')
}

main()
